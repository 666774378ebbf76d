//! The binary, as people and scripts use it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

const CONFIG: &str = r#"[listen]
certificate = "tls.crt"
private_key = "tls.key"

[[backends]]
name = "one"
endpoint = "https://x.openai.azure.com"

[deployments.chat]
model = "gpt-4o-mini"

[prices."gpt-4o-mini"]
input = 0.15
output = 0.60

[tiers.default]
tokens_per_minute = 20000
"#;

struct Gateway {
    folder: TempDir,
}

impl Gateway {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(folder.path().join("tls.crt"), pair.cert.pem()).unwrap();
        fs::write(folder.path().join("tls.key"), pair.signing_key.serialize_pem()).unwrap();
        let gateway = Self { folder };
        gateway.configure(CONFIG);
        gateway
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("gateway.toml")
    }

    fn configure(&self, text: &str) {
        fs::write(self.config(), text).unwrap();
    }

    fn run(&self, line: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_aoai-gateway"))
            .args(line.split(' '))
            .env("AOAI_GATEWAY_CONFIG", self.config())
            .env_remove("AZURE_TENANT_ID")
            .env_remove("AZURE_CLIENT_ID")
            .env_remove("AZURE_FEDERATED_TOKEN_FILE")
            .output()
            .unwrap()
    }

    /// What a command that succeeds prints.
    fn answer(&self, line: &str) -> String {
        let Output { status, stdout, stderr } = self.run(line);
        let stderr = String::from_utf8(stderr).unwrap();
        assert!(status.success(), "{line}: {status}: {stderr}");
        assert_eq!(stderr, "", "{line}");
        String::from_utf8(stdout).unwrap()
    }

    /// The exit code of a command that fails and what it says, without the folder's name.
    fn failure(&self, line: &str) -> (i32, String) {
        let Output { status, stdout, stderr } = self.run(line);
        assert_eq!(String::from_utf8(stdout).unwrap(), "", "{line}");
        let folder = format!("{}/", self.folder.path().display());
        (status.code().unwrap(), String::from_utf8(stderr).unwrap().replace(&folder, ""))
    }
}

#[test]
fn a_tenant_is_added_rotated_suspended_resumed_and_removed() {
    let gateway = Gateway::new();
    let added = gateway.answer("tenant add acme");
    let mut last = added.lines().rev();
    let secondary = last.next().unwrap().strip_prefix("secondary: ").unwrap().to_owned();
    let primary = last.next().unwrap().strip_prefix("primary: ").unwrap().to_owned();
    assert!(primary.starts_with("aoai_") && primary.len() == 48, "{primary}");
    assert_ne!(primary, secondary);
    let file = fs::read_to_string(gateway.folder.path().join("tenants.toml")).unwrap();
    assert!(!file.contains(&primary) && !file.contains(&secondary) && !file.contains("aoai_"));

    let rotated = gateway.answer("tenant rotate acme --slot secondary");
    let new = rotated.lines().last().unwrap().strip_prefix("secondary: ").unwrap();
    assert_ne!(new, secondary);

    gateway.answer("tenant suspend acme");
    assert!(gateway.answer("tenant show acme").contains("state      suspended\n"));
    gateway.answer("tenant resume acme");
    let list: serde_json::Value = serde_json::from_str(&gateway.answer("tenant list --format json")).unwrap();
    assert_eq!(list[0]["name"], "acme");
    assert_eq!(list[0]["state"], "active");
    assert_ne!(list[0]["created"], serde_json::Value::Null);

    gateway.answer("tenant remove acme");
    assert_eq!(gateway.answer("tenant list"), "NAME  TIER  STATE  CREATED  ROTATED\n");
}

#[test]
fn a_wrong_name_is_answered_with_the_nearest() {
    let gateway = Gateway::new();
    gateway.answer("tenant add widgets");
    assert_eq!(
        gateway.failure("tenant suspend widgest"),
        (1, "error: there is no tenant `widgest`; did you mean `widgets`?\n".to_owned())
    );
    assert_eq!(
        gateway.failure("tenant add acme --tier defualt"),
        (1, "error: there is no tier `defualt` in gateway.toml; did you mean `default`?\n".to_owned())
    );
    let (code, again) = gateway.failure("tenant add widgets");
    assert_eq!(code, 1);
    assert!(again.starts_with("error: there is a tenant `widgets` already"), "{again}");
}

#[test]
fn a_check_of_what_is_right_says_so() {
    let gateway = Gateway::new();
    gateway.answer("tenant add acme");
    let answer = gateway.answer("check");
    assert!(answer.ends_with("gateway.toml: ok: 1 backend, 1 deployment, 1 tier, 1 tenant\n"), "{answer}");
}

#[test]
fn a_check_of_what_is_wrong_names_file_line_and_key_and_exits_with_2() {
    let gateway = Gateway::new();
    gateway.configure(&CONFIG.replace("tokens_per_minute = 20000", "tokens_per_minit = 0"));
    assert_eq!(
        gateway.failure("check"),
        (
            2,
            "gateway.toml:17:1: tiers.default.tokens_per_minit: unknown key `tokens_per_minit` in \
             [tiers.default]; did you mean `tokens_per_minute`?\n"
                .to_owned()
        )
    );
}

#[test]
fn a_check_looks_at_certificates_and_tenants_in_one_go() {
    let gateway = Gateway::new();
    fs::remove_file(gateway.folder.path().join("tls.key")).unwrap();
    let (code, problems) = gateway.failure("check");
    assert_eq!(code, 2);
    let lines: Vec<_> = problems.lines().collect();
    assert_eq!(lines.len(), 2, "{problems}");
    assert!(
        lines[0].starts_with("gateway.toml:3:1: listen.private_key: tls.key cannot be read"),
        "{problems}"
    );
    assert_eq!(lines[1], "tenants.toml: does not exist; `aoai-gateway tenant add NAME` writes it");
}

#[test]
fn a_check_warns_of_a_certificate_that_expires_and_of_what_was_left_in_a_template() {
    let gateway = Gateway::new();
    gateway.answer("tenant add acme");
    gateway.configure(&CONFIG.replace("https://x.", "https://REPLACE-ME."));
    for (year, expected) in [(2020, "expired "), (4096, "")] {
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        fs::write(gateway.folder.path().join("tls.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(gateway.folder.path().join("tls.key"), key.serialize_pem()).unwrap();
        let answer = gateway.answer("check");
        assert!(answer.contains("warning: backends[0].endpoint: holds a placeholder"), "{answer}");
        let warns = answer.contains("warning: listen.certificate: ");
        assert_eq!(warns, !expected.is_empty(), "{answer}");
        assert!(answer.contains(expected) && answer.ends_with("1 tenant\n"), "{answer}");
    }
}

#[test]
fn a_check_tells_whose_key_it_is_not() {
    let gateway = Gateway::new();
    gateway.answer("tenant add acme");
    let other = rcgen::KeyPair::generate().unwrap();
    fs::write(gateway.folder.path().join("tls.key"), other.serialize_pem()).unwrap();
    let (code, problems) = gateway.failure("check");
    assert_eq!(code, 2);
    assert!(problems.starts_with("gateway.toml:3:1: listen.private_key: "), "{problems}");
    assert!(problems.contains("the private key belongs to another certificate"), "{problems}");
    assert!(!problems.contains("KeyMismatch"), "{problems}");
    // Without `check` the same is told at the start.
    let (code, problem) = gateway.failure("serve");
    assert_eq!(code, 2);
    assert!(problem.contains("the private key belongs to another certificate"), "{problem}");
}

#[test]
fn an_identity_without_its_variables_names_them() {
    let gateway = Gateway::new();
    gateway.answer("tenant add acme");
    gateway.configure(&format!(
        "{CONFIG}[identity]\nsource = \"workload\"\n[kernel]\nmode = \"off\"\n[admin]\naddress = \"127.0.0.1:0\"\n"
    ).replace("[listen]", "[listen]\naddress = \"127.0.0.1:0\""));
    let (code, log) = gateway.failure("serve");
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("identity: the source is a workload identity"), "{log}");
    assert!(log.contains("AZURE_TENANT_ID") && log.contains("azure-workload-identity webhook"), "{log}");
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let gateway = Gateway::new();
    fs::remove_file(gateway.config()).unwrap();
    let (code, problem) = gateway.failure("tenant list");
    assert_eq!(code, 2);
    assert!(problem.starts_with("gateway.toml: does not exist; --config"), "{problem}");
}
