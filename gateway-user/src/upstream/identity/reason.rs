//! Why there is no token, in words for whoever has to mend it. What is not known here is told in the library's words.

use std::error::Error as _;
use std::time::Duration;

use azure_core::error::{Error, ErrorKind};
use serde_json::Value;

use super::Source;

/// What puts the variables of a workload identity into a pod.
pub(super) const WEBHOOK: &str = "the azure-workload-identity webhook sets them in a pod that has the label \
    azure.workload.identity/use: \"true\" and whose service account has the annotation \
    azure.workload.identity/client-id";

/// Why an attempt gave no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// Nobody answered, for what the system says.
    Unreachable(String),
    /// An answer without a token.
    Answered {
        /// Its status.
        status: u16,
        /// What its body says.
        said: String,
    },
    /// Nothing came for so long.
    Silent(Duration),
    /// What the library says.
    Library(String),
}

impl Cause {
    /// The cause in an error of the library's, which wraps one in another.
    pub(super) fn of(error: &Error) -> Self {
        let mut inner = Some(error);
        while let Some(error) = inner {
            match error.kind() {
                ErrorKind::HttpResponse { status, raw_response: Some(response), .. } => {
                    return Self::Answered { status: (*status).into(), said: said(response.body()) };
                }
                ErrorKind::Connection | ErrorKind::Io => return Self::Unreachable(deepest(error)),
                _ => inner = error.downcast_ref::<Error>(),
            }
        }
        Self::Library(sentence(&error.to_string()))
    }
}

/// What is wrong with a source, and what to do.
pub(super) fn explain(source: Source, client_id: Option<&str>, cause: &Cause) -> String {
    match (source, cause) {
        (_, Cause::Silent(time)) => {
            format!("{} has not answered for {} seconds", place(source), time.as_secs())
        }
        (Source::VirtualMachine, Cause::Unreachable(detail)) => format!(
            "{} cannot be reached ({detail}): this node has no managed identity endpoint, as outside Azure, or a network \
             policy keeps the gateway from it",
            place(source)
        ),
        (Source::Workload, Cause::Unreachable(detail)) => {
            format!("{} cannot be reached ({detail}): let the gateway through to it", place(source))
        }
        (Source::AppService | Source::Cli, Cause::Unreachable(detail)) => {
            format!("{} cannot be reached ({detail})", place(source))
        }
        (Source::VirtualMachine | Source::AppService, Cause::Answered { status: 400, said }) => {
            no_such_identity(client_id, said)
        }
        (Source::Workload, Cause::Answered { status, said }) => refused_by_entra(*status, said),
        (_, Cause::Answered { status, said }) => format!("{} answers {status}: {said}", place(source)),
        (Source::Cli, Cause::Library(text)) => no_cli(text),
        (_, Cause::Library(text)) => text.clone(),
    }
}

const fn place(source: Source) -> &'static str {
    match source {
        Source::Workload => "Entra (AZURE_AUTHORITY_HOST, by default login.microsoftonline.com)",
        Source::VirtualMachine => "instance metadata (169.254.169.254)",
        Source::AppService => "the endpoint that IDENTITY_ENDPOINT names",
        Source::Cli => "`az`",
    }
}

/// 400 of a managed identity endpoint (Azure, "How to use managed identities on a VM": error handling).
fn no_such_identity(client_id: Option<&str>, said: &str) -> String {
    match client_id {
        Some(client_id) => format!(
            "the managed identity endpoint knows no identity with the client ID {client_id} ({said}): assign that identity \
             to this node, or correct identity.client_id"
        ),
        None if said.contains("Multiple") => {
            format!("this node has several identities ({said}): say which one with identity.client_id")
        }
        None => format!(
            "this node has no identity of its own ({said}): assign one to it, or name a user-assigned one with \
             identity.client_id"
        ),
    }
}

/// The errors of Entra that a wrong set-up makes (Entra, "Microsoft Entra authentication and authorization error codes").
fn refused_by_entra(status: u16, said: &str) -> String {
    let remedy = if ["AADSTS70021", "AADSTS700211", "AADSTS700212", "AADSTS700213"]
        .iter()
        .any(|code| said.contains(code))
    {
        "the identity has no federated credential for this cluster's issuer, namespace and service account"
    } else if said.contains("AADSTS700016") {
        "there is no identity with this client ID in the tenant: check AZURE_CLIENT_ID, or identity.client_id, and \
         AZURE_TENANT_ID"
    } else if said.contains("AADSTS90002") || said.contains("AADSTS900023") {
        "there is no such tenant: check AZURE_TENANT_ID"
    } else if said.contains("AADSTS500011") {
        "the tenant knows no such scope: check `scope` of the backend"
    } else {
        return format!("{} answers {status}: {said}", place(Source::Workload));
    };
    format!("{remedy} ({said})")
}

fn no_cli(text: &str) -> String {
    if text.contains("not found on PATH") {
        "the Azure CLI, `az`, is not installed or not on the PATH".to_owned()
    } else if text.contains("az login") {
        format!("nobody is signed in: run `az login` ({text})")
    } else {
        text.to_owned()
    }
}

/// What an answer's body says, in any of the shapes that these endpoints give it.
fn said(body: &[u8]) -> String {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let field = ["/error_description", "/message", "/error/message", "/error"];
    let text = field.iter().find_map(|field| json.pointer(field).and_then(Value::as_str));
    let text = text.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned);
    if text.trim().is_empty() { "without a reason".to_owned() } else { sentence(&text) }
}

/// The first line of a text from outside, without what the library adds around it.
pub(super) fn sentence(text: &str) -> String {
    let text = text.trim();
    let text = text.split_once(" authentication failed.").map_or(text, |(_credential, rest)| rest.trim());
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("no reason given");
    line.trim_end_matches('.').chars().filter(|c| !c.is_control()).take(MOST_SHOWN).collect()
}

/// The innermost cause, which is the system's.
fn deepest(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = source.to_string();
        next = source.source();
    }
    sentence(&text)
}

const MOST_SHOWN: usize = 300;
