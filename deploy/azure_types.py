"""Azure's resource types, as Microsoft's management libraries on PyPI (azure-mgmt-*) describe them.

The libraries are generated from the same specifications as Bicep's own types. Their sources are read, never run: which paths
take a PUT at which API version, which model such a request carries, and which properties the model has.
"""

import ast
import re
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

BUILDER = re.compile(r"^def (build_\w+_request)\(.*?(?=^def |^class |\Z)", re.MULTILINE | re.DOTALL)
PROVIDER = re.compile(r'"(/[^"]*providers/(Microsoft\.[^"]+))"')
VERSION = re.compile(r'"api-version", "(\d{4}-\d\d-\d\d(?:-preview)?)"')
METHOD = re.compile(r"^    (?:async )?def \w+\((.*?)\) ->(.*?)(?=^    (?:async )?def |^class |\Z)", re.MULTILINE | re.DOTALL)
MODEL = re.compile(r"_models\.(\w+)")


@dataclass
class Model:
    """The properties of one object. `open` is an object that takes any."""

    properties: dict[str, "Property"] = field(default_factory=dict)
    open: bool = False


@dataclass
class Property:
    """What a property holds: a model, what each element of an array or a map is, or a plain value (None)."""

    value: "Model | str | None" = None
    each: bool = False
    readonly: bool = False
    required: bool = False


class Library:
    """One version of one library: a folder with models and operations."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def models(self) -> dict[str, str]:
        """The source of each model's class."""
        files = [self.folder / "models" / name for name in ("_models_py3.py", "_models.py")]
        source = next(file for file in files if file.exists()).read_text()
        starts = [*re.finditer(r"^class (\w+)\(", source, re.MULTILINE)]
        ends = [start.start() for start in starts[1:]] + [len(source)]
        return {start[1]: source[start.start() : end] for start, end in zip(starts, ends, strict=True)}

    def resources(self) -> list[tuple[str, str]]:
        """Each `Type/subtype@version`, in lower case, that takes a PUT, with the model that such a request carries."""
        found = []
        for file in (self.folder / "operations").glob("*operations.py"):
            source = file.read_text()
            builders = {}
            for builder in BUILDER.finditer(source):
                path, version = PROVIDER.search(builder[0]), VERSION.search(builder[0])
                if path and version and 'method="PUT"' in builder[0]:
                    provider, *segments = path[2].split("/providers/")[-1].split("/")
                    builders[builder[1]] = f"{'/'.join([provider, *segments[::2]])}@{version[1]}"
            for method in METHOD.finditer(source):
                model = MODEL.search(method[1])
                for name in re.findall(r"\b(build_\w+_request)\(", method[2]):
                    if model and name in builders:
                        found.append((builders[name].lower(), model[1]))
        return found

    def model(self, name: str, discriminators: dict[str, str] | None = None) -> Model:
        """The model of that name, or its subtype where `discriminators` names one."""
        source = self.models[name]
        body = ast.parse(source).body[0]
        tables = {
            target.id: ast.literal_eval(statement.value)
            for statement in body.body
            if isinstance(statement, ast.Assign)
            for target in statement.targets
            if isinstance(target, ast.Name) and target.id in ("_attribute_map", "_validation", "_subtype_map")
        }
        if "_attribute_map" not in tables:
            return self.declared(body)
        for attribute, subtypes in tables.get("_subtype_map", {}).items():
            key = tables["_attribute_map"][attribute]["key"].replace("\\", "")
            subtype = subtypes.get((discriminators or {}).get(key))
            if subtype:
                return self.model(subtype, discriminators)
        return self.mapped(tables["_attribute_map"], tables.get("_validation", {}))

    def mapped(self, attributes: dict, validation: dict) -> Model:
        """A model of the older libraries, where `a.b` stands for a property inside another."""
        model = Model()
        for attribute, entry in attributes.items():
            if not entry["key"]:
                model.open = True
                continue
            *outer, last = re.split(r"(?<!\\)\.", entry["key"])
            inner = model
            for name in outer:
                inner = inner.properties.setdefault(name, Property(Model())).value
            checks = validation.get(attribute, {})
            kind = entry["type"]
            each = kind[0] in "[{"
            named = kind.strip("[]{}")
            inner.properties[last.replace("\\", "")] = Property(
                value=named if named in self.models else None,
                each=each,
                readonly=checks.get("readonly", False),
                required=checks.get("required", False),
            )
        return model

    def declared(self, body: ast.ClassDef) -> Model:
        """A model of the newer libraries, which inherits and has one annotated field for each property."""
        model = Model()
        for base in body.bases:
            name = ast.unparse(base).removeprefix("_models.")
            if name in self.models:
                model.properties |= self.model(name).properties
        for statement in body.body:
            if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.value, ast.Call)):
                continue
            if statement.value.func.id not in ("rest_field", "rest_discriminator"):
                continue
            keywords = {keyword.arg: ast.unparse(keyword.value).strip("'") for keyword in statement.value.keywords}
            annotation = ast.unparse(statement.annotation)
            named = MODEL.search(annotation)
            name = keywords.get("name", statement.target.id)
            model.properties[name] = Property(
                value=named[1] if named and named[1] in self.models else None,
                each=bool(re.search(r"\b(list|dict)\[", annotation, re.IGNORECASE)),
                readonly=keywords.get("visibility") == "['read']",
                required=not annotation.startswith("Optional["),
            )
        return model


@cache
def libraries() -> dict[str, list[tuple[Library, str]]]:
    """For each `Type/subtype@version` in lower case: where it is described, and as which model."""
    import azure.mgmt  # A namespace: nothing of it runs.

    found = {}
    for root in map(Path, azure.mgmt.__path__):
        for operations in root.rglob("operations"):
            library = Library(operations.parent)
            if operations.parent.name != "aio" and (library.folder / "models").is_dir():
                for resource, model in library.resources():
                    found.setdefault(resource, []).append((library, model))
    return found
