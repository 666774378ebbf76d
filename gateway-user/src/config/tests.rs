//! Whole files: the example, the defaults, and what is said about wrong ones.

use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::limits::{Ceiling, Limits, Period, Quota};
use crate::units::{NanoDollars, TokenPrice, Tokens};

pub(super) const MINIMAL: &str = r#"
[listen]
certificate = "tls.crt"
private_key = "/tls.key"

[[backends]]
name = "one"
endpoint = "https://x.openai.azure.com"

[deployments.chat]
model = "gpt-4o-mini"

[tiers.default]
"#;

pub(super) fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(text, Path::new("/etc/gateway/gateway.toml"))
}

/// The problems of a file, each without the file's name.
pub(super) fn problems(text: &str) -> Vec<String> {
    let errors = parse(text).unwrap_err().to_string();
    errors.lines().map(|line| line.trim_start_matches("/etc/gateway/gateway.toml:").to_owned()).collect()
}

/// The minimal file with `from` changed into `to`.
pub(super) fn changed(from: &str, to: &str) -> String {
    assert!(MINIMAL.contains(from), "{from}");
    MINIMAL.replacen(from, to, 1)
}

#[test]
fn the_example_shows_what_it_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway.example.toml");
    let config = Config::load(&path).unwrap();
    assert_eq!(config.warnings(), []);
    assert_eq!(config.backends.len(), 2);
    assert_eq!(config.deployments["reasoner"].backends, [BackendName::new("eastus2").unwrap()]);
    assert!(config.deployments["reasoner"].facts.reasons);
    assert!(!config.deployments["chat"].facts.reasons);
    assert_eq!(config.prices["gpt-4o-mini"].cached_input, TokenPrice::from_pico_dollars(75_000));
    let tier = &config.tiers["default"];
    assert_eq!(tier.limits.tokens_per_minute.unwrap().get(), 20_000);
    let tokens = Quota::Tokens { limit: Tokens::new(5_000_000), period: Period::Monthly };
    let spend = Quota::Spend { limit: NanoDollars::new(50_000_000_000), period: Period::Daily };
    assert_eq!(*tier.limits.quotas, [tokens, spend]);
    assert_eq!(config.tiers["batch"].limits.quotas.len(), 2);
    assert!(!config.tiers["batch"].deployments.allows("reasoner"));
}

#[test]
fn what_the_example_gives_as_defaults_are_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway.example.toml");
    let example = Config::load(&path).unwrap();
    let minimal = Config::parse(MINIMAL, &path).unwrap();
    let Listen { certificate, private_key, .. } = minimal.listen.clone();
    assert_eq!(Listen { certificate, private_key, ..example.listen }, minimal.listen);
    assert_eq!(example.admin, minimal.admin);
    assert_eq!(example.identity, minimal.identity);
    assert_eq!(example.store, minimal.store);
    assert_eq!(example.errors, minimal.errors);
    assert_eq!(example.kernel, minimal.kernel);
    assert_eq!(example.tenants, minimal.tenants);
    assert_eq!(example.log, minimal.log);
    let Backend { name, endpoint, .. } = minimal.backends[0].clone();
    assert_eq!(Backend { name, endpoint, ..example.backends[0].clone() }, minimal.backends[0]);
}

#[test]
fn paths_start_from_the_folder_of_the_file() {
    let config = parse(MINIMAL).unwrap();
    assert_eq!(config.listen.certificate, Path::new("/etc/gateway/tls.crt"));
    assert_eq!(config.listen.private_key, Path::new("/tls.key"));
    assert_eq!(config.tenants.path(), Path::new("/etc/gateway/tenants.toml"));
    assert_eq!(config.listen.header_timeout, Duration::from_secs(10));
}

#[test]
fn a_tier_limits_only_what_it_names_and_that_is_worth_a_warning() {
    let config = parse(MINIMAL).unwrap();
    let tier = &config.tiers["default"];
    assert_eq!(tier.limits, Limits::default());
    assert_eq!(tier.deployments, AllowedDeployments::All);
    let warnings: Vec<_> = config.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "deployments.chat: model `gpt-4o-mini` has no price, so that its cost is counted as nothing; \
             add [prices.\"gpt-4o-mini\"]",
            "tiers.default: limits neither tokens nor dollars, so that its tenants can spend without end",
        ]
    );
}

#[test]
fn an_empty_file_lacks_everything_at_once() {
    assert_eq!(
        problems(""),
        [
            " listen.certificate: is missing",
            " listen.private_key: is missing",
            " backends: must have at least one entry",
            " deployments: must have at least one entry",
            " tiers: must have at least one entry",
        ]
    );
}

#[test]
fn an_unknown_key_names_the_nearest_known_one() {
    assert_eq!(
        problems(&changed("[tiers.default]", "[tiers.default]\ncalls_per_minit = 3\nxyzzy = 1")),
        [
            "14:1: tiers.default.calls_per_minit: unknown key `calls_per_minit` in [tiers.default]; did you mean `calls_per_minute`?",
            "15:1: tiers.default.xyzzy: unknown key `xyzzy` in [tiers.default]",
        ]
    );
    assert_eq!(
        problems(&format!("{MINIMAL}[kernal]\nmode = \"off\"\n")),
        ["14:2: kernal: unknown key `kernal`; did you mean `kernel`?"]
    );
}

#[test]
fn every_problem_has_its_line_and_its_key() {
    let wrong = r#"
[listen]
address = "8443"
certificate = ""
private_key = 5
proxy_protocol_from = [
    "10.0.0.0/8",
    "ten",
]
header_timeout = "10"

[identity]
source = "manged"

[[backends]]
name = "one"
endpoint = "http://x.openai.azure.com"

[[backends]]
name = "one"
endpoint = "https://x"
weight = 0

[deployments."a b"]
model = "gpt-4o"

[deployments.chat]
model = "gpt-4o"
backends = ["two", "on"]

[prices."gpt-4.1"]
input = -1
output = nan

[tiers.default]
deployments = ["chad"]
token_quota = [{ tokens = 1, period = "daily" }, { tokens = 2, period = "daily" }]
spend_quota = { dollars = 0, period = "fortnightly" }
ceiling = true
"#;
    let problems = problems(wrong);
    let expected = [
        "3:11: listen.address: must be an address and a port",
        "4:15: listen.certificate: must be a text without control characters, and not empty",
        "5:15: listen.private_key: must be a text, found integer",
        "8:5: listen.proxy_protocol_from[1]: must be a network",
        "10:18: listen.header_timeout: must be a duration",
        "13:10: identity.source: must be one of \"auto\", \"managed\", \"workload\", \"cli\", \"none\", found \"manged\"; did you mean `managed`?",
        "17:12: backends[0].endpoint: may use http:// only for a loopback host",
        "20:1: backends[1].name: is there twice: one",
        "22:10: backends[1].weight: must be between 1 and 4294967295, found 0",
        "24:14: deployments.\"a b\": may hold only letters",
        "29:13: deployments.chat.backends[0]: there is no backend `two`",
        "29:20: deployments.chat.backends[1]: there is no backend `on`; did you mean `one`?",
        "32:9: prices.\"gpt-4.1\".input: must be an amount of dollars from 0 to 1000000, found -1",
        "33:10: prices.\"gpt-4.1\".output: must be an amount of dollars",
        "36:16: tiers.default.deployments[0]: there is no deployment `chad`; did you mean `chat`?",
        "37:1: tiers.default.token_quota: is there twice: daily",
        "38:27: tiers.default.spend_quota.dollars: must be more than nothing",
        "38:39: tiers.default.spend_quota.period: must be one of",
        "39:11: tiers.default.ceiling: must be a text, found boolean",
    ];
    for (index, expected) in expected.iter().enumerate() {
        assert!(
            problems.get(index).is_some_and(|problem| problem.starts_with(expected)),
            "expected {expected}, found {problems:#?}"
        );
    }
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
}

#[test]
fn what_is_no_toml_is_told_with_its_line() {
    let problems = problems(&changed("[deployments.chat]", "[deployments.chat\n"));
    assert!(problems[0].starts_with("10:18: deployments.chat: "), "{problems:?}");
}

#[test]
fn a_syntax_error_has_its_key_and_its_column() {
    let cases = [
        ("[deployments.chat]", "[deployments.chat]\nreasoning = yes", "11:13: deployments.chat.reasoning: "),
        ("[tiers.default]", "[tiers.default]\ncalls_per_minute =", "14:19: tiers.default.calls_per_minute: "),
        ("name = \"one\"", "name = \"one", "7:12: backends.name: "),
        ("name = \"one\"", "name = \"one\"\nname = \"two\"", "8:1: backends.name: "),
        ("[listen]", "oops = ö\n[listen]", "2:8: oops: "),
        (
            "[tiers.default]",
            "[tiers.default]\ndeployments = [\n  \"chat\",\n  chat,\n]",
            "16:3: tiers.default.deployments: ",
        ),
    ];
    for (from, to, expected) in cases {
        let problems = problems(&changed(from, to));
        assert!(problems[0].starts_with(expected), "{to}: expected {expected}, found {problems:#?}");
    }
}

#[test]
fn a_word_that_is_not_known_is_answered_with_the_one_that_begins_alike() {
    for (period, meant) in
        [("day", "daily"), ("days", "daily"), ("month", "monthly"), ("hours", "hourly"), ("weekli", "weekly")]
    {
        let quota = format!("{MINIMAL}token_quota = {{ tokens = 1, period = \"{period}\" }}\n");
        let problem = problems(&quota).remove(0);
        assert!(problem.ends_with(&format!("found \"{period}\"; did you mean `{meant}`?")), "{problem}");
    }
    let quota = format!("{MINIMAL}token_quota = {{ tokens = 1, period = \"fortnightly\" }}\n");
    assert!(problems(&quota)[0].ends_with("found \"fortnightly\""));
}

#[test]
fn without_an_identity_every_backend_is_on_loopback() {
    let none = "[identity]\nsource = \"none\"\n";
    assert_eq!(
        problems(&format!("{MINIMAL}{none}")),
        ["15:1: identity.source: \"none\" is for backends on loopback only, and `one` is not"]
    );
    let local = changed("https://x.openai.azure.com", "http://127.0.0.1:9000");
    let config = parse(&format!("{local}{none}")).unwrap();
    assert_eq!(config.identity.source, IdentitySource::None);
    assert!(config.warnings().contains(&Warning::NoIdentity));
}

#[test]
fn a_spend_quota_needs_prices() {
    let quota = format!("{MINIMAL}spend_quota = {{ dollars = 1, period = \"daily\" }}\n");
    assert_eq!(
        problems(&quota),
        [
            "14:1: tiers.default.spend_quota: deployment `chat` has no price, so what it spends could not be counted; \
             add [prices.\"gpt-4o-mini\"]"
        ]
    );
    assert!(parse(&format!("{quota}[prices.\"gpt-4o-mini\"]\ninput = 0.15\noutput = 0.6\n")).is_ok());
}

#[test]
fn a_star_stands_alone() {
    let star = format!("{MINIMAL}deployments = [\"*\", \"chat\"]\n");
    assert_eq!(
        problems(&star),
        ["14:1: tiers.default.deployments: \"*\" means every deployment and stands alone"]
    );
    assert!(problems(&format!("{MINIMAL}deployments = []\n"))[0].ends_with("at least one entry"));
}

#[test]
fn two_listeners_need_two_addresses() {
    let same = format!("{MINIMAL}[admin]\naddress = \"0.0.0.0:8443\"\n");
    assert_eq!(problems(&same), ["15:1: admin.address: 0.0.0.0:8443 is the address of [listen] already"]);
}

#[test]
fn certificate_and_key_are_opened_only_by_a_check() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.toml");
    std::fs::write(&path, changed("/tls.key", "tls.key")).unwrap();
    assert!(Config::load(&path).is_ok());

    let missing = Config::check(&path).unwrap_err();
    let places: Vec<_> =
        missing.errors().iter().map(|error| (error.position.map(|at| at.line), error.key.as_str())).collect();
    assert_eq!(places, [(Some(3), "listen.certificate"), (Some(4), "listen.private_key")]);

    std::fs::write(folder.path().join("tls.crt"), "no certificate").unwrap();
    std::fs::write(folder.path().join("tls.key"), "no key").unwrap();
    let empty = Config::check(&path).unwrap_err().to_string();
    assert!(empty.contains("tls.crt holds no certificate in PEM"), "{empty}");
    assert!(empty.contains("tls.key holds no private key in PEM"), "{empty}");
}

#[test]
fn a_check_takes_a_certificate_only_with_its_own_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.toml");
    std::fs::write(&path, changed("/tls.key", "tls.key")).unwrap();
    let ours = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.path().join("tls.crt"), ours.cert.pem()).unwrap();

    std::fs::write(folder.path().join("tls.key"), ours.signing_key.serialize_pem()).unwrap();
    assert!(Config::check(&path).is_ok());

    std::fs::write(folder.path().join("tls.key"), other.signing_key.serialize_pem()).unwrap();
    let errors = Config::check(&path).unwrap_err().to_string();
    assert!(errors.contains("gateway.toml:4:1: listen.private_key: certificate and private key"), "{errors}");
    assert!(errors.contains("the private key belongs to another certificate"), "{errors}");
    assert!(!errors.contains("KeyMismatch"), "{errors}");
}

proptest! {
    #[test]
    fn what_is_written_is_what_is_read(
        calls in 1..=u32::MAX,
        tokens in 1..=u32::MAX,
        quota in 1..=1u64 << 53,
        nanos in 1..=1_000_000_000_000_000_000u64,
        price in 0..=1_000_000_000_000u64,
        timeout in 1..=86_400_000u64,
        soft: bool,
    ) {
        let ceiling = if soft { "soft" } else { "strict" };
        let (dollars, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
        let (price_dollars, price_rest) = (price / 1_000_000, price % 1_000_000);
        let text = format!(
            "{MINIMAL}calls_per_minute = {calls}\ntokens_per_minute = {tokens}\nceiling = \"{ceiling}\"\n\
             token_quota = {{ tokens = {quota}, period = \"yearly\" }}\n\
             spend_quota = {{ dollars = {dollars}.{rest:09}, period = \"hourly\" }}\n\
             [prices.\"gpt-4o-mini\"]\ninput = {price_dollars}.{price_rest:06}\noutput = 1\n"
        );
        let text = text.replace("[listen]", &format!("[listen]\nidle_timeout = \"{timeout}ms\""));
        let config = parse(&text).unwrap();
        let tier = &config.tiers["default"];
        prop_assert_eq!(&tier.limits, &Limits {
            calls_per_minute: NonZeroU32::new(calls),
            tokens_per_minute: NonZeroU32::new(tokens),
            concurrent_calls: None,
            quotas: Box::new([
                Quota::Tokens { limit: Tokens::new(quota), period: Period::Yearly },
                Quota::Spend { limit: NanoDollars::new(nanos), period: Period::Hourly },
            ]),
            ceiling: if soft { Ceiling::Soft } else { Ceiling::Strict },
        });
        prop_assert_eq!(config.listen.idle_timeout, Duration::from_millis(timeout));
        prop_assert_eq!(config.deployments["chat"].prices.unwrap().input, TokenPrice::from_pico_dollars(price));
    }

    #[test]
    fn no_text_upsets_the_reader(text in "[a-z\\[\\]=.\"'{}#\n0-9 -]{0,200}") {
        prop_assert!(parse(&text).is_err());
    }
}
