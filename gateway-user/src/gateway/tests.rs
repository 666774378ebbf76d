use std::path::Path;

use prometheus_client::encoding::prometheus_text;
use prometheus_client::registry::Registry;

use super::*;
use crate::ledger::{Assumed, Booked};
use crate::limits::{Now, Period};
use crate::meter::Usage;
use crate::names::TierName;
use crate::units::{NanoDollars, Tokens};

const CONFIG: &str = r#"
[listen]
address = "127.0.0.1:0"
certificate = "tls.crt"
private_key = "tls.key"
[identity]
source = "none"
[[backends]]
name = "azure"
endpoint = "http://127.0.0.1:9"
[deployments.chat]
model = "gpt-4o-mini"
[prices."gpt-4o-mini"]
input = 0.15
cached_input = 0.075
output = 0.60
[tiers.default]
token_quota = { tokens = 1000000, period = "hourly" }
[kernel]
mode = "off"
"#;

/// A gateway with a store of its own, and what Prometheus would read of it.
struct Scene {
    gateway: Arc<Gateway>,
    registry: Registry,
    _state: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let (clock, state) = (Clock::start(), tempfile::tempdir().unwrap());
        let (registry, metrics) = crate::metrics::registry();
        let keeping = Keeping::Alone(Store::open(state.path(), clock.now()).unwrap());
        let config = config();
        let shedder = Shedder::attach(config.kernel.clone(), "127.0.0.1:1".parse().unwrap()).unwrap();
        let directory = directory(&["acme", "widgets"]);
        let gateway = Gateway::new(clock, metrics, keeping, Arc::new(shedder), config, directory, Vec::new());
        Self { gateway, registry, _state: state }
    }

    fn replace(&self, tenants: &[&str]) {
        self.gateway.replace(config(), directory(tenants), Vec::new());
    }

    /// One call of a tenant that used so many tokens.
    fn call(&self, tenant: &str, tokens: u64) {
        let snapshot = self.gateway.snapshot();
        let tenant = snapshot.tenants().iter().find(|found| found.name.as_str() == tenant).unwrap();
        let used = crate::limits::Used { tokens: Tokens::new(tokens), ..Default::default() };
        tenant.account.adjust(used, crate::limits::Used::default(), self.gateway.clock.now());
        let usage = Usage { input: Tokens::new(tokens), ..Usage::default() };
        let series = tenant.series(snapshot.deployment("chat").unwrap(), &self.gateway.metrics);
        let assumed = Assumed { tokens: Tokens::new(1), cost: NanoDollars::new(1) };
        series.single.add(&Booked { usage, cost: NanoDollars::new(9), assumed });
        self.gateway.metrics.request(Some(&tenant.name), None, 429, "rate_limit");
        self.gateway.metrics.throttled(&tenant.name, "rate_limit");
    }

    fn series(&self, tenant: &str) -> usize {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.registry).unwrap();
        text.matches(&format!("tenant=\"{tenant}\"")).count()
    }

    fn tokens(&self, tenant: &str) -> Option<u64> {
        let account = self.gateway.account(&TenantName::new(tenant).unwrap())?;
        let counters = account.counters(self.gateway.clock.now());
        Some(counters.periods[Period::Yearly.index()].tokens.get())
    }
}

fn config() -> Config {
    Config::parse(CONFIG, Path::new("/nowhere/gateway.toml")).unwrap()
}

fn directory(names: &[&str]) -> Directory {
    let tenants = names.iter().map(|name| crate::tenant::Tenant {
        name: TenantName::new(name).unwrap(),
        tier: TierName::new("default").unwrap(),
        state: TenantState::Active,
        primary: KeyHash::of(format!("primary {name}").as_bytes()),
        secondary: KeyHash::of(format!("secondary {name}").as_bytes()),
        created: None,
        rotated: None,
    });
    Directory::new(tenants.collect(), &config().tiers).unwrap()
}

/// Forgets whoever is over at a moment.
fn forget(gateway: &Gateway, now: Now) -> Vec<TenantName> {
    gateway.forget(gateway.over(now), now)
}

#[test]
fn a_removed_tenant_goes_with_its_series_when_its_last_period_has_ended() {
    let scene = Scene::new();
    let now = scene.gateway.clock.now();
    let an_hour_later = Now { utc_seconds: now.utc_seconds + 2 * 3600, ..now };
    scene.call("acme", 100);
    scene.call("widgets", 7);
    assert_eq!(forget(&scene.gateway, an_hour_later), [], "nobody is removed");
    let others = scene.series("widgets");

    scene.replace(&["widgets"]);
    assert_eq!(forget(&scene.gateway, now), [], "its hour is not over");
    assert!(scene.series("acme") > 0);
    scene.replace(&["acme", "widgets"]);
    assert_eq!(forget(&scene.gateway, an_hour_later), [], "it has come back");
    assert_eq!(scene.tokens("acme"), Some(100), "and finds what it had used");

    scene.replace(&["widgets"]);
    let acme = TenantName::new("acme").unwrap();
    assert_eq!(forget(&scene.gateway, an_hour_later), [acme]);
    assert_eq!((scene.series("acme"), scene.tokens("acme")), (0, None));
    assert_eq!((scene.series("widgets"), scene.tokens("widgets")), (others, Some(7)));

    scene.replace(&["acme", "widgets"]);
    assert_eq!(scene.tokens("acme"), Some(0));
    scene.call("acme", 5);
    assert_eq!(scene.series("acme"), others, "it counts anew");
}

#[test]
fn a_removed_tenant_whose_call_is_open_is_kept() {
    let scene = Scene::new();
    let now = scene.gateway.clock.now();
    let later = Now { utc_seconds: now.utc_seconds + 2 * 3600, ..now };
    let open = Arc::clone(&scene.gateway.snapshot().tenants()[0]);
    scene.replace(&[]);
    let widgets = TenantName::new("widgets").unwrap();
    assert_eq!(forget(&scene.gateway, later), [widgets]);
    drop(open);
    assert_eq!(forget(&scene.gateway, later).len(), 1);
}

#[test]
fn a_tenant_that_comes_back_between_the_look_and_the_drop_is_kept() {
    let scene = Scene::new();
    let now = scene.gateway.clock.now();
    let later = Now { utc_seconds: now.utc_seconds + 2 * 3600, ..now };
    scene.call("acme", 100);
    scene.replace(&["widgets"]);
    let over = scene.gateway.over(later);
    assert_eq!(over.len(), 1);
    scene.replace(&["acme", "widgets"]);
    assert_eq!(scene.gateway.forget(over, later), []);
    assert_eq!(scene.tokens("acme"), Some(100));
}
