//! Files of which something is to be said, and files beside them of which nothing is.

use crate::config::tests::{MINIMAL, parse};

const TOKENS: &str = "tokens_per_minute = 20000\n";

/// The warnings of a file.
fn warnings(text: &str) -> Vec<String> {
    parse(text).unwrap().warnings().iter().map(ToString::to_string).collect()
}

/// A file that nothing is to be said of.
fn quiet() -> String {
    format!("{MINIMAL}tokens_per_minute = 20000\n[prices.\"gpt-4o-mini\"]\ninput = 0.15\noutput = 0.6\n")
}

#[test]
fn what_is_probably_a_mistake_is_worth_a_warning() {
    assert_eq!(warnings(&quiet()), [""; 0]);
    let cases = [
        ("https://x.openai", "https://REPLACE-ME.openai", "backends[0].endpoint: holds a placeholder"),
        ("azure.com\"", "azure.com/openai/deployments/chat\"", "write \"https://x.openai.azure.com\""),
        ("azure.com\"", "azure.com/openai/v1/\"", "Azure would be asked for `/openai/v1/openai/…`"),
        (
            "[tiers.default]",
            "[admin]\naddress = \"0.0.0.0:9464\"\n[tiers.default]",
            "admin.address: 0.0.0.0:9464 is open",
        ),
        ("input = 0.15", "input = 0.00015", "prices.gpt-4o-mini.input: $0.00015 for a million tokens is far"),
        ("output = 0.6", "output = 0.0006", "prices.gpt-4o-mini.output: $0.0006 for"),
        ("output = 0.6", "output = 0.01", "prices.gpt-4o-mini.output: $0.01 for"),
        ("input = 0.15", "input = 150000", "prices.gpt-4o-mini.input: $150000 for"),
        (
            "tokens_per_minute = 20000",
            "tokens_per_minute = 999",
            "tiers.default.tokens_per_minute: 999 tokens are fewer",
        ),
    ];
    for (from, to, expected) in cases {
        let text = quiet();
        assert!(text.contains(from), "{from}");
        let warnings = warnings(&text.replacen(from, to, 1));
        assert_eq!(warnings.len(), 1, "{to}: {warnings:#?}");
        assert!(warnings[0].contains(expected), "{to}: expected {expected}, found {warnings:#?}");
    }
    for fine in [
        ("[tiers.default]", "[admin]\naddress = \"[::1]:9464\"\n[tiers.default]"),
        ("input = 0.15", "input = 0.005"),
        ("output = 0.6", "output = 0"),
        ("output = 0.6", "output = 600"),
    ] {
        assert_eq!(warnings(&quiet().replacen(fine.0, fine.1, 1)), [""; 0], "{}", fine.1);
    }
}

#[test]
fn state_that_tenants_share_is_worth_a_warning_where_there_are_several() {
    let among = |text: &str, tenants| -> Vec<_> {
        parse(text).unwrap().warnings_among(tenants).map(|warning| warning.to_string()).collect()
    };
    let shares = format!("ceiling = \"soft\"\nstored_state = true\n{TOKENS}");
    let shares = quiet().replacen(TOKENS, &shares, 1);
    assert_eq!(among(&shares, 1), [""; 0]);
    assert!(among(&shares, 2)[0].starts_with("tiers.default: `stored_state = true` lets"));
    assert_eq!(among(&shares.replacen("soft", "strict", 1), 2), [""; 0]);
    assert_eq!(among(&quiet(), 2), [""; 0]);
}

#[test]
fn a_certificate_is_worth_a_warning_for_a_month_before_it_expires() {
    let config = parse(&quiet()).unwrap();
    let day = 24 * 60 * 60;
    let warning =
        |expires_at| config.certificate_warning(expires_at, 100 * day).map(|warning| warning.to_string());
    assert_eq!(warning(130 * day), None);
    let path = "listen.certificate: /etc/gateway/tls.crt";
    assert_eq!(warning(130 * day - 1), Some(format!("{path} expires 29 days from now; replace it")));
    assert_eq!(warning(100 * day), Some(format!("{path} expires less than a day from now; replace it")));
    let expired = format!("{path} expired 2 days ago, and callers refuse it; replace it");
    assert_eq!(warning(98 * day), Some(expired));
}
