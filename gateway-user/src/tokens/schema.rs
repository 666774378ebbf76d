//! JSON schemas, as the model sees them: types of TypeScript.
//!
//! The parameters of a function are shown to the model as a TypeScript type (OpenAI's harmony format, "Function calling",
//! <https://developers.openai.com/cookbook/articles/openai-harmony>, and its reference implementation). Every line counts as
//! it would be written there; a keyword that has no place in such a type counts as its value is written.

use std::collections::HashMap;

use serde_json::value::RawValue;

use super::count::Count;
use super::raw;
use crate::units::Tokens;

/// Adds the type of a function's parameters.
pub(super) fn parameters(count: &mut Count, schema: &RawValue) {
    let mut types = Types { definitions: HashMap::new(), costs: HashMap::new() };
    types.define(count, schema);
    types.add(count, schema, Place { depth: NESTED_SCHEMAS, nested: false });
    types.add_unused(count);
}

/// The definitions that the schemas of one function refer to, and what each of them costs where it is referred to.
struct Types<'a> {
    definitions: HashMap<String, &'a RawValue>,
    costs: HashMap<String, Tokens>,
}

/// Where in a function's parameters a schema stands.
#[derive(Clone, Copy)]
struct Place {
    /// How many more levels are told apart. Each reads what is below it once more.
    depth: usize,
    /// Whether it is below a parameter.
    nested: bool,
}

/// What of a schema makes up the line of TypeScript that stands for it.
#[derive(Default)]
struct Parts<'a> {
    kind: Option<&'a RawValue>,
    description: Option<&'a RawValue>,
    title: Option<&'a RawValue>,
    choices: Option<&'a RawValue>,
    items: Option<&'a RawValue>,
    properties: Option<&'a RawValue>,
    variants: Option<&'a RawValue>,
    reference: Option<&'a RawValue>,
}

impl<'a> Types<'a> {
    fn define(&mut self, count: &mut Count, schema: &'a RawValue) {
        raw::entries(schema, |key, value| {
            if matches!(key, "$defs" | "definitions") {
                count.entries(value, |count, name, definition| {
                    if self.definitions.len() >= MOST_DEFINITIONS {
                        count.compact(definition);
                    } else if let Some(earlier) = self.definitions.insert(name.to_owned(), definition) {
                        count.compact(earlier);
                    }
                });
            }
        });
    }

    /// Definitions that nothing refers to, each as it is written.
    fn add_unused(&self, count: &mut Count) {
        for (name, definition) in &self.definitions {
            if !self.costs.contains_key(name) {
                count.compact(definition);
            }
        }
    }

    fn add(&mut self, count: &mut Count, schema: &'a RawValue, place: Place) {
        if place.depth == 0 || !raw::is_object(schema) {
            return count.compact(schema);
        }
        let parts = Parts::of(count, schema);
        if let Some(description) = parts.description {
            comment(count, description);
        }
        self.add_type(count, &parts, place);
    }

    fn add_type(&mut self, count: &mut Count, parts: &Parts<'a>, place: Place) {
        let below = Place { depth: place.depth - 1, nested: true };
        if let Some(reference) = parts.reference {
            self.refer(count, reference, below);
        }
        if let Some(choices) = parts.choices {
            add_choices(count, choices);
        }
        if let Some(variants) = parts.variants {
            self.add_variants(count, variants, below);
        }
        if let Some(items) = parts.items {
            count.fixed(ARRAY);
            self.add(count, items, below);
        }
        match parts.properties {
            Some(properties) if place.depth > 1 && raw::is_object(properties) => {
                self.add_properties(count, properties, place);
            }
            Some(properties) => count.compact(properties),
            None => match parts.kind {
                Some(kind) => count.compact(kind),
                None => count.fixed(ANY),
            },
        }
    }

    fn add_properties(&mut self, count: &mut Count, properties: &'a RawValue, place: Place) {
        let mut any = false;
        count.entries(properties, |count, name, value| {
            any = true;
            self.add_property(count, name, value, Place { depth: place.depth - 1, ..place });
        });
        if any {
            count.fixed(BRACES);
        }
    }

    /// `// description`, then `name: type,`.
    fn add_property(&mut self, count: &mut Count, name: &str, schema: &'a RawValue, place: Place) {
        count.fixed(PROPERTY);
        count.text(name);
        if !raw::is_object(schema) {
            return count.compact(schema);
        }
        let parts = Parts::of(count, schema);
        if let Some(title) = parts.title.filter(|_| place.nested) {
            comment(count, title);
        }
        if let Some(description) = parts.description {
            comment(count, description);
        }
        self.add_type(count, &parts, place);
    }

    /// Each on a line of its own.
    fn add_variants(&mut self, count: &mut Count, variants: &'a RawValue, place: Place) {
        if !raw::is_array(variants) {
            return count.compact(variants);
        }
        count.elements(variants, |count, variant| {
            if place.depth == 0 || !raw::is_object(variant) {
                return count.compact(variant);
            }
            let parts = Parts::of(count, variant);
            if parts.kind.is_some() || parts.reference.is_some() {
                count.fixed(VARIANT);
            }
            self.add_type(count, &parts, place);
        });
    }

    /// The definition in place of the reference, each time. Its cost is worked out only the first time, so that definitions
    /// which refer to each other many times over cost much, and take no time. Within itself a definition is a name.
    fn refer(&mut self, count: &mut Count, reference: &RawValue, place: Place) {
        let Some(pointer) = raw::text(reference) else { return count.compact(reference) };
        let name = pointer.rsplit('/').next().unwrap_or_default();
        if let Some(cost) = self.costs.get(name) {
            return count.add(*cost);
        }
        let Some(definition) = self.definitions.get(name).copied() else { return count.text(name) };
        self.costs.insert(name.to_owned(), Tokens::new(ANY));
        let before = count.total();
        self.add(count, definition, place);
        self.costs.insert(name.to_owned(), count.total().saturating_sub(before));
    }
}

impl<'a> Parts<'a> {
    /// Gathers the parts of an object; what is none of them is added right away, repeated ones included.
    fn of(count: &mut Count, schema: &'a RawValue) -> Self {
        let mut parts = Self::default();
        count.entries(schema, |count, key, value| {
            let slot = match key {
                "type" => &mut parts.kind,
                "description" => &mut parts.description,
                "title" => &mut parts.title,
                "enum" => &mut parts.choices,
                "items" => &mut parts.items,
                "properties" => &mut parts.properties,
                "anyOf" | "oneOf" | "allOf" => &mut parts.variants,
                "$ref" => &mut parts.reference,
                "required" | "$schema" | "$defs" | "definitions" => return,
                "additionalProperties" if !raw::is_object(value) => return,
                // `// default: …`, and whatever is yet to come.
                _ => return count.compact(value),
            };
            if let Some(earlier) = slot.replace(value) {
                count.compact(earlier);
            }
        });
        parts
    }
}

/// `"a" | "b"`.
fn add_choices(count: &mut Count, choices: &RawValue) {
    if !raw::is_array(choices) {
        return count.compact(choices);
    }
    count.elements(choices, |count, choice| {
        count.fixed(if raw::text(choice).is_some() { CHOICE } else { 1 });
        count.compact(choice);
    });
}

fn comment(count: &mut Count, text: &RawValue) {
    count.fixed(COMMENT);
    count.value(text);
}

/// `any`.
const ANY: u64 = 1;
/// `{` and `}` on lines of their own.
const BRACES: u64 = 3;
/// `:`, `,` and the end of the line.
const PROPERTY: u64 = 2;
/// `//` and the end of the line.
const COMMENT: u64 = 2;
/// `[]`.
const ARRAY: u64 = 1;
/// The quotes of a choice and the bar before it.
const CHOICE: u64 = 2;
/// A variant has a line of its own, as recorded answers of Azure count it.
const VARIANT: u64 = 8;
/// How deep schemas within schemas are told apart.
const NESTED_SCHEMAS: usize = 8;
/// How many definitions are looked up by name; those beyond count as they are written.
const MOST_DEFINITIONS: usize = 1024;
