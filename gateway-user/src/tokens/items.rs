//! What the types of tools and of input items mean for a budget: the closed lists of the Responses API.
//!
//! Both the reading of a request and its estimate use them, so that a strict budget refuses exactly the items that the
//! estimate cannot count (OpenAI, API reference, "Create a model response", `tools` and `input`).

/// Where a tool runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runs {
    /// At the caller's: upstream writes the call, the caller sends the result with the next request.
    AtCaller,
    /// At Azure, which adds what it finds to the prompt, unseen by the gateway.
    AtUpstream,
}

/// Where a tool of this `type` runs; nothing for a type that is not known.
///
/// `execution` is the tool's field of that name, and `environment` is the `type` of its `environment`. A `namespace` holds
/// tools of its own in `tools`, each with a `type`: it runs where they do.
pub(crate) fn runs(kind: &str, execution: Option<&str>, environment: Option<&str>) -> Option<Runs> {
    match kind {
        "function"
        | "custom"
        | "namespace"
        | "apply_patch"
        | "local_shell"
        | "computer"
        | "computer_use_preview" => Some(Runs::AtCaller),
        "shell" if environment == Some("local") => Some(Runs::AtCaller),
        "tool_search" if execution == Some("client") => Some(Runs::AtCaller),
        "shell" | "tool_search" | "code_interpreter" | "file_search" | "image_generation" | "mcp" => {
            Some(Runs::AtUpstream)
        }
        _ if is_version_of("web_search", kind) => Some(Runs::AtUpstream),
        _ => None,
    }
}

/// The fields that show the result of an input item of this `type`; nothing for types whose items show all that they are.
///
/// These items say what a tool did that ran at Azure. One that has none of the fields is known to Azure by its id: how much
/// it adds to the prompt is not in the request. No field shows the pages that a web search read.
pub(crate) fn result_fields(kind: &str) -> Option<&'static [&'static str]> {
    match kind {
        "item_reference" | "web_search_call" => Some(&[]),
        "code_interpreter_call" => Some(&["outputs"]),
        "file_search_call" => Some(&["results"]),
        "image_generation_call" => Some(&["result"]),
        "mcp_call" => Some(&["output", "error"]),
        _ => None,
    }
}

/// Whether `kind` is `name`, its preview, or a dated version of either: `web_search_preview_2025_03_11`.
fn is_version_of(name: &str, kind: &str) -> bool {
    kind.strip_prefix(name).is_some_and(|rest| {
        let rest = rest.strip_prefix("_preview").unwrap_or(rest);
        rest.bytes().all(|byte| byte == b'_' || byte.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_runs_where_its_type_and_execution_say() {
        for kind in ["function", "custom", "namespace", "apply_patch", "local_shell", "computer"] {
            assert_eq!(runs(kind, None, None), Some(Runs::AtCaller), "{kind}");
        }
        for kind in [
            "web_search",
            "web_search_preview",
            "web_search_preview_2025_03_11",
            "web_search_2025_08_26",
            "file_search",
            "mcp",
            "code_interpreter",
            "image_generation",
        ] {
            assert_eq!(runs(kind, None, None), Some(Runs::AtUpstream), "{kind}");
        }
        assert_eq!(runs("tool_search", None, None), Some(Runs::AtUpstream));
        assert_eq!(runs("tool_search", Some("server"), None), Some(Runs::AtUpstream));
        assert_eq!(runs("tool_search", Some("client"), None), Some(Runs::AtCaller));
        assert_eq!(runs("shell", None, Some("local")), Some(Runs::AtCaller));
        assert_eq!(runs("shell", None, Some("container_auto")), Some(Runs::AtUpstream));
        assert_eq!(runs("shell", Some("client"), None), Some(Runs::AtUpstream));
        for kind in ["", "web_searcher", "web_search_premium", "Function", "function ", "retrieval"] {
            assert_eq!(runs(kind, None, None), None, "{kind}");
        }
    }

    #[test]
    fn a_call_that_ran_upstream_shows_its_result_or_not() {
        assert_eq!(result_fields("web_search_call"), Some([].as_slice()));
        assert_eq!(result_fields("item_reference"), Some([].as_slice()));
        assert_eq!(result_fields("image_generation_call"), Some(["result"].as_slice()));
        for kind in ["message", "reasoning", "function_call", "function_call_output", "compaction", ""] {
            assert_eq!(result_fields(kind), None, "{kind}");
        }
    }
}
