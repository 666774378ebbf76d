//! Tools of a request: those that run at the caller's, and those that run upstream and spend there.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::elements;
use crate::tokens::items::{self, Runs};

/// How deep namespaces may hold namespaces.
const NESTED: usize = 4;

/// The first tool of a list that does not run at the caller's: its type, as it is written. Unknown types are among them, for
/// nobody knows where they run.
///
/// # Errors
/// When the list may be read differently by another parser: a `type` given twice would hide such a tool.
pub(super) fn hosted(tools: &RawValue) -> Result<Option<String>, serde_json::Error> {
    hosted_within(tools, NESTED)
}

fn hosted_within(tools: &RawValue, depth: usize) -> Result<Option<String>, serde_json::Error> {
    if tools.get() == "null" {
        return Ok(None);
    }
    let mut first = None;
    elements::each(tools, |tool: Tool<'_>| {
        if first.is_none()
            && let Some(kind) = &tool.kind
        {
            first = tool.hosted(kind, depth)?;
        }
        Ok(())
    })?;
    Ok(first)
}

/// A tool, as far as it says where it runs (OpenAI API reference, "Create a model response", `tools`).
#[derive(Deserialize)]
struct Tool<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    environment: Option<&'a RawValue>,
    #[serde(borrow)]
    execution: Option<Cow<'a, str>>,
    #[serde(borrow)]
    tools: Option<&'a RawValue>,
}

/// Where a shell runs.
#[derive(Deserialize)]
struct Environment<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
}

impl Tool<'_> {
    /// Its type, or that of the first tool in it, where it does not run at the caller's.
    fn hosted(&self, kind: &str, depth: usize) -> Result<Option<String>, serde_json::Error> {
        if kind == "namespace"
            && depth > 0
            && let Some(inner) = self.tools
        {
            return hosted_within(inner, depth - 1);
        }
        Ok(if self.runs_at_the_caller(kind)? {
            None
        } else {
            Some(kind.chars().take(LONGEST_TYPE).collect())
        })
    }

    fn runs_at_the_caller(&self, kind: &str) -> Result<bool, serde_json::Error> {
        if kind == "namespace" && self.tools.is_some() {
            // Deeper than it was read.
            return Ok(false);
        }
        let environment: Option<Environment<'_>> = match self.environment {
            Some(object) if object.get().starts_with('{') => Some(serde_json::from_str(object.get())?),
            _ => None,
        };
        let environment = environment.as_ref().and_then(|environment| environment.kind.as_deref());
        Ok(items::runs(kind, self.execution.as_deref(), environment) == Some(Runs::AtCaller))
    }
}

/// How much of a type's name is repeated in a refusal.
const LONGEST_TYPE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn first_hosted(tools: &str) -> Option<String> {
        hosted(&RawValue::from_string(tools.to_owned()).unwrap()).unwrap()
    }

    #[test]
    fn tools_of_the_caller_pass() {
        for tools in [
            "null",
            "[]",
            r#"[{"type":"function"},{"type":"custom"},{"type":"apply_patch"},{"type":"local_shell"}]"#,
            r#"[{"type":"computer"},{"type":"computer_use_preview","environment":"browser"}]"#,
            r#"[{"type":"shell","environment":{"type":"local"}}]"#,
            r#"[{"type":"tool_search","execution":"client"}]"#,
            r#"[{"type":"namespace","tools":[{"type":"function"}]},{"type":"namespace"}]"#,
            r#"[{"name":"f","parameters":{}}]"#,
        ] {
            assert_eq!(first_hosted(tools), None, "{tools}");
        }
    }

    #[test]
    fn tools_that_run_upstream_and_unknown_ones_are_named() {
        for (tools, named) in [
            (r#"[{"type":"function"},{"type":"web_search_preview"}]"#, "web_search_preview"),
            (r#"[{"type":"file_search"}]"#, "file_search"),
            (r#"[{"type":"mcp","server_url":"x"}]"#, "mcp"),
            (r#"[{"type":"code_interpreter"}]"#, "code_interpreter"),
            (r#"[{"type":"image_generation"}]"#, "image_generation"),
            (r#"[{"type":"shell"}]"#, "shell"),
            (r#"[{"type":"shell","environment":{"type":"container_auto"}}]"#, "shell"),
            (r#"[{"type":"tool_search"}]"#, "tool_search"),
            (r#"[{"type":"tool_search","execution":"server"}]"#, "tool_search"),
            (r#"[{"type":"namespace","tools":[{"type":"web_search"}]}]"#, "web_search"),
            (r#"[{"type":"yet_to_come"}]"#, "yet_to_come"),
            (r#"[{"type":"web\u005fsearch"}]"#, "web_search"),
        ] {
            assert_eq!(first_hosted(tools).as_deref(), Some(named), "{tools}");
        }
    }

    #[test]
    fn namespaces_within_namespaces_come_to_an_end() {
        let mut tools = r#"[{"type":"function"}]"#.to_owned();
        for _ in 0..NESTED {
            tools = format!(r#"[{{"type":"namespace","tools":{tools}}}]"#);
        }
        assert_eq!(first_hosted(&tools), None);
        let deeper = format!(r#"[{{"type":"namespace","tools":{tools}}}]"#);
        assert_eq!(first_hosted(&deeper).as_deref(), Some("namespace"));
    }

    #[test]
    fn a_list_that_can_be_read_in_two_ways_is_an_error() {
        for tools in [
            r#"[{"type":"web_search","type":"function"}]"#,
            r#"[{"type":"shell","environment":{"type":"container_auto","type":"local"}}]"#,
            r#"[{"type":"namespace","tools":[{"type":"mcp","type":"function"}]}]"#,
            r#"{"type":"function"}"#,
        ] {
            assert!(hosted(&RawValue::from_string(tools.to_owned()).unwrap()).is_err(), "{tools}");
        }
    }
}
