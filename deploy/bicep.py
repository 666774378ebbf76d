"""Checks the Bicep files: syntax, names, what passes between the files, and the resources against `azure_types`.

It stands in for Azure's compiler, which no registry that the tests install from has. What it does not know: the types of
expressions, which values a property takes, and Azure's functions.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import tree_sitter
import tree_sitter_bicep

from azure_types import Library, Model, Property, libraries

Node = tree_sitter.Node
Report = Callable[[bool, str], None]
GRAMMAR = tree_sitter.Parser(tree_sitter.Language(tree_sitter_bicep.language()))
# What every resource of Bicep takes beside the properties of its type.
BICEP = {"name", "parent", "scope", "dependsOn"}
DECLARATIONS = {
    f"{kind}_declaration": kind for kind in ("parameter", "variable", "resource", "module", "output", "type")
}


@dataclass
class Source:
    """One file, parsed."""

    file: Path

    @cached_property
    def root(self) -> Node:
        return GRAMMAR.parse(self.file.read_bytes()).root_node

    def nodes(self, *kinds: str) -> Iterator[Node]:
        return (node for node in walk(self.root) if node.type in kinds)

    def declared(self, kind: str) -> dict[str, Node]:
        nodes = self.nodes(f"{kind}_declaration")
        return {text(node.named_children[0]): node for node in nodes}

    @cached_property
    def imports(self) -> dict[str, Path]:
        """Imported names, with the file that each comes from."""
        found = {}
        for node in self.nodes("import_functionality"):
            *names, path = node.named_children
            found |= {text(name): self.beside(path) for name in names}
        return found

    @cached_property
    def modules(self) -> dict[str, Path]:
        return {name: self.beside(node.named_children[1]) for name, node in self.declared("module").items()}

    @cached_property
    def exported(self) -> set[str]:
        pattern = r"^@export\(\)\n(?:@.*\n)*(?:type|var|func) (\w+)"
        return set(re.findall(pattern, self.file.read_text(), re.MULTILINE))

    def beside(self, path: Node) -> Path:
        return (self.file.parent / text(path).strip("'")).resolve()


def walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from walk(child)


def text(node: Node) -> str:
    return node.text.decode()


def members(node: Node) -> dict[str, Node]:
    """The properties of an object, or of an object that is made under a condition or in a loop."""
    if node.type in ("if_statement", "for_statement"):
        node = node.named_children[-1]
    pairs = (child.named_children for child in node.named_children if child.type == "object_property")
    return {text(pair[0]).strip("'"): pair[-1] for pair in pairs}


def check(folder: Path, report: Report) -> None:
    """Checks every Bicep file below a folder, and the parameter files."""
    sources = {file.resolve(): Source(file.resolve()) for file in sorted(folder.rglob("*.bicep"))}
    types = libraries()
    for source in sources.values():
        check_syntax(source, report)
        check_names(source, report)
        check_files(source, sources, report)
        check_items(source, sources, report)
        check_resources(source, types, report)
        # A deployment in another month would ask for another value, and what has it may not be changed.
        timeless = "utcNow" not in source.file.read_text()
        report(timeless, f"{source.file.name}: utcNow makes each deployment another one")
    for cycle in cycles(sources):
        report(False, f"a cycle of imports and modules: {cycle}")
    for file in folder.rglob("*.bicepparam"):
        given = set(re.findall(r"^param (\w+) =", file.read_text(), re.MULTILINE))
        used = re.search(r"^using '(.+)'", file.read_text(), re.MULTILINE)[1]
        check_parameters(file.name, given, sources[(file.parent / used).resolve()], report)


def check_syntax(source: Source, report: Report) -> None:
    def errors(node: Node) -> Iterator[Node]:
        if node.is_error or node.is_missing:
            yield node
            return
        for child in node.children:
            yield from errors(child)

    for node in errors(source.root):
        line = node.start_point[0] + 1
        report(False, f"{source.file.name}:{line}: {text(node) or node.type!r} does not belong there")


def check_names(source: Source, report: Report) -> None:
    """What is named is declared, imported or a loop's, and what is declared is used."""
    loops = {text(node.named_children[0]) for node in source.nodes("for_statement")}
    declared = {name for kind in DECLARATIONS.values() for name in source.declared(kind)}
    used = set()
    for node in source.nodes("identifier"):
        first = node.parent.named_children[0] == node
        named = node.parent.type in {*DECLARATIONS, "object_property", "call_expression", "for_statement"}
        if not (first and named) and node.parent.type != "import_functionality":
            used.add(text(node))
    unknown = used - declared - loops - source.imports.keys()
    report(not unknown, f"{source.file.name}: {', '.join(sorted(unknown))} is not declared")
    unused = {*source.declared("parameter"), *source.declared("variable"), *source.imports} - used
    report(not unused, f"{source.file.name}: {', '.join(sorted(unused))} is not used")


def check_files(source: Source, sources: dict[Path, Source], report: Report) -> None:
    """Files that are named exist, export what is imported, and are given the parameters that they have."""
    for name, path in source.imports.items():
        known = path in sources and name in sources[path].exported
        report(known, f"{source.file.name} imports {name}, which {path.name} does not export")
    for name, path in source.modules.items():
        if path not in sources:
            report(False, f"{source.file.name} names {path.name}, which is missing")
            continue
        given = members(members(source.declared("module")[name].named_children[2])["params"]).keys()
        check_parameters(f"{source.file.name}, {name}", set(given), sources[path], report)
        outputs = set(re.findall(rf"\b{name}[!?]?\.outputs\.(\w+)", source.file.read_text()))
        unknown = outputs - sources[path].declared("output").keys()
        report(not unknown, f"{source.file.name}: {path.name} has no output {', '.join(sorted(unknown))}")


def check_parameters(where: str, given: set[str], module: Source, report: Report) -> None:
    """A module is given every parameter that must be given, and none that it does not have."""
    declared = module.declared("parameter")
    optional = re.compile(r"^param \w+ (?:[^=\n]*\?$|[^=\n]*=)")
    needed = {name for name, node in declared.items() if not optional.match(text(node))}
    report(needed <= given, f"{where} lacks {', '.join(sorted(needed - given))}")
    unknown = given - declared.keys()
    report(not unknown, f"{where} has {', '.join(sorted(unknown))}, which is no parameter")


def check_items(source: Source, sources: dict[Path, Source], report: Report) -> None:
    """What is read of an element of an array is in the type of its elements, and read with `?` where it may be missing."""
    elements = {
        name: re.match(r"param \w+ (\w+)\[\]", text(node)) for name, node in source.declared("parameter").items()
    }
    for loop in source.nodes("for_statement"):
        item, array = text(loop.named_children[0]), text(loop.named_children[1])
        named = elements.get(array) and elements[array][1]
        owner = sources.get(source.imports.get(named), source)
        declaration = owner.declared("type").get(named)
        if declaration is None:
            continue
        fields = members(declaration.named_children[1])
        for question, name in re.findall(rf"\b{item}\.(\??)(\w+)", text(loop)):
            report(name in fields, f"{source.file.name}: {named} has no {name}")
            nullable = name in fields and text(fields[name]).endswith("?")
            may = "may be missing" if nullable else "is never missing"
            report(nullable == bool(question), f"{source.file.name}: {item}.{name} {may}")


def check_resources(source: Source, types: dict[str, list[tuple[Library, str]]], report: Report) -> None:
    """Resource types, API versions and properties are some that Azure has."""
    for symbol, node in source.declared("resource").items():
        kind = text(node.named_children[1]).strip("'")
        where = f"{source.file.name}, {symbol}"
        described = types.get(kind.lower())
        if described is None:
            report(False, f"{where}: no library describes {kind}; of that type there {versions(kind, types)}")
            continue
        # Several requests may make one type: of a diagnostic setting, for a resource and for a subscription.
        found = min((problems(node, library, model) for library, model in described), key=len)
        for problem in found:
            report(False, f"{where}: {problem}")
        for path in re.findall(rf"\b{symbol}\.(properties(?:\.\w+)+)", source.file.read_text()):
            has = any(leads(library, library.model(model), path.split(".")) for library, model in described)
            report(has, f"{where} has no {path}")


def versions(kind: str, types: dict) -> str:
    same = [key.partition("@")[2] for key in types if key.partition("@")[0] == kind.lower().partition("@")[0]]
    return f"is {', '.join(sorted(same))}" if same else "is none"


def problems(resource: Node, library: Library, model: str) -> list[str]:
    body = resource.named_children[-1]
    if "existing" in [text(child) for child in resource.children]:
        return [f"{name} is not asked for an existing resource" for name in members(body).keys() - BICEP]
    return [*mismatches(body, Property(model), library, "", BICEP)]


def mismatches(node: Node, wanted: Property, library: Library, path: str, further: set[str] = frozenset()) -> Iterator[str]:
    """Where a value is not as a property wants it."""
    if node.type in ("if_statement", "for_statement", "parenthesized_expression"):
        yield from mismatches(node.named_children[-1], wanted, library, path, further)
    elif node.type == "ternary_expression":
        for branch in node.named_children[1:]:
            yield from mismatches(branch, wanted, library, path)
    elif node.type == "array":
        for element in node.named_children:
            yield from mismatches(element, wanted, library, f"{path}[]")
    elif node.type == "object" and wanted.value is not None:
        within = node.parent.type in ("array", "for_statement")
        if wanted.each and not within:
            for name, value in members(node).items():
                yield from mismatches(value, Property(wanted.value), library, f"{path}.{name}")
            return
        yield from unlike(node, wanted.value, library, path, further)


def unlike(node: Node, named: Model | str, library: Library, path: str, further: set[str]) -> Iterator[str]:
    """Where an object is not as its model says."""
    given = members(node)
    texts = {name: text(value).strip("'") for name, value in given.items()}
    model = named if isinstance(named, Model) else library.model(named, texts)
    for name, value in given.items():
        at = f"{path}.{name}".lstrip(".")
        wanted = model.properties.get(name)
        if name in further:
            continue
        if wanted is None:
            if not model.open:
                yield f"{at} is no property"
        elif wanted.readonly:
            yield f"{at} can only be read"
        else:
            yield from mismatches(value, wanted, library, at)
    for name, wanted in model.properties.items():
        if wanted.required and not wanted.readonly and name not in given and name not in further:
            yield f"{path}.{name} is missing".lstrip(".")


def leads(library: Library, model: Model, path: list[str]) -> bool:
    """Whether there is such a property, of the resource as it is read."""
    name, *rest = path
    wanted = model.properties.get(name)
    if wanted is None:
        return model.open
    if not rest or wanted.value is None or wanted.each:
        return True
    inner = wanted.value if isinstance(wanted.value, Model) else library.model(wanted.value)
    return leads(library, inner, rest)


def cycles(sources: dict[Path, Source]) -> list[str]:
    """Chains of files that lead back to where they began. Bicep counts imports like modules (BCP095)."""
    found = set()

    def follow(file: Path, chain: list[Path]) -> None:
        if file in chain:
            ring = chain[chain.index(file) :]
            first = ring.index(min(ring))
            found.add(" → ".join(path.name for path in [*ring[first:], *ring[:first], ring[first]]))
        elif file in sources:
            for target in {*sources[file].imports.values(), *sources[file].modules.values()}:
                follow(target, [*chain, file])

    for file in sources:
        follow(file, [])
    return sorted(found)
