//! What a tenant takes that makes no calls: in every store, with everything that the process keeps of it.
//!
//! Counted are the bytes that are asked of the allocator for each of ten thousand more tenants. "Budgets" are what is kept
//! to limit a tenant: its account with the windows, the books of the periods and the lease. "All" is that and its keys,
//! its name, its limits, its places in the tables and its gauge. Not counted are the series that Prometheus reads, which
//! are made with the first call to a deployment: they are measured apart.
#![expect(clippy::unwrap_used, reason = "tests unwrap, and so do their helpers")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use gateway_user::config::{Config, StoreLocation, WhenDown};
use gateway_user::fleet::{Fleet, LEASE_LIFETIME};
use gateway_user::gateway::{Gateway, Keeping};
use gateway_user::kernel::Shedder;
use gateway_user::limits::lease::{RESOURCES, SliceReply};
use gateway_user::limits::{Account, Admission, Ask, Clock, LeaseReply, Limits, Now, Occasion, Used};
use gateway_user::metrics;
use gateway_user::names::{DeploymentName, ModelName, TenantName, TierName};
use gateway_user::secret::KeyHash;
use gateway_user::store::Store;
use gateway_user::tenant::{Directory, Tenant, TenantState};
use gateway_user::units::{Prices, TokenPrice, Tokens};
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

const TENANTS: usize = 10_000;
const KIBIBYTE: usize = 1024;
/// Every kind of limit at once.
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
[deployments.embed]
model = "text-embedding-3-small"
[prices."gpt-4o-mini"]
input = 0.15
cached_input = 0.075
output = 0.60
[prices."text-embedding-3-small"]
input = 0.02
output = 0.0
[tiers.default]
calls_per_minute = 60
tokens_per_minute = 20000
concurrent_calls = 10
token_quota = [{ tokens = 1000000, period = "daily" }, { tokens = 9000000, period = "monthly" }]
spend_quota = { dollars = 50, period = "monthly" }
[kernel]
mode = "off"
"#;

fn config(store: &str) -> Config {
    let text = format!("{CONFIG}[store]\nurl = \"{store}\"\n");
    Config::parse(&text, Path::new("/nowhere/gateway.toml")).unwrap()
}

fn tenants(count: usize) -> Vec<Tenant> {
    (0..count)
        .map(|number| Tenant {
            name: TenantName::new(&format!("tenant-{number:05}")).unwrap(),
            tier: TierName::new("default").unwrap(),
            state: TenantState::Active,
            primary: KeyHash::of(format!("primary {number}").as_bytes()),
            secondary: KeyHash::of(format!("secondary {number}").as_bytes()),
            created: None,
            rotated: None,
        })
        .collect()
}

/// A gateway with so many tenants, in a directory or in a fleet.
fn gateway(store: &str, count: usize) -> (Arc<Gateway>, tempfile::TempDir) {
    let config = config(store);
    let directory = Directory::new(tenants(count), &config.tiers).unwrap();
    let (clock, state) = (Clock::start(), tempfile::tempdir().unwrap());
    let (mut registry, metrics) = metrics::registry();
    let keeping = match &config.store.location {
        StoreLocation::Directory(_) => Keeping::Alone(Store::open(state.path(), clock.now()).unwrap()),
        StoreLocation::Redis(url) => {
            Keeping::Shared(Fleet::new(url, WhenDown::Degraded, clock, &metrics, &mut registry).unwrap())
        }
    };
    let shedder = Arc::new(Shedder::attach(config.kernel.clone(), "127.0.0.1:1".parse().unwrap()).unwrap());
    (Gateway::new(clock, metrics, keeping, shedder, config, directory, Vec::new()), state)
}

/// Bytes for each of so many more, of what is made.
fn each<T>(make: impl Fn(usize) -> T) -> usize {
    let of = |count| {
        let before = HEAP.current_usage();
        let made = make(count);
        let used = HEAP.current_usage() - before;
        drop(made);
        used
    };
    // Tables grow by doubling: between these two they do so once.
    (of(2 * TENANTS) - of(TENANTS)) / TENANTS
}

fn one_call(account: &Arc<Account>, limits: &Limits, now: Now) {
    let price = TokenPrice::from_pico_dollars(1);
    let ask = Ask {
        prompt: Tokens::new(10),
        answers: 1,
        output_named: Some(Tokens::new(10)),
        output_most: Tokens::new(10),
        prices: Prices { input: price, cached_input: price, output: price },
    };
    let (admission, _) = Admission::admit(account, limits, &ask, now).unwrap();
    admission.settle(Used { tokens: Tokens::new(20), output: Tokens::new(10), ..Used::default() }, now);
}

fn at(seconds: u64) -> Now {
    Now { monotonic_ms: 1_000_000 + seconds * 1000, utc_seconds: 1_800_000_000 + seconds }
}

/// An answer that leases plenty of everything, or nothing.
fn reply(amount: u64) -> LeaseReply {
    let slice = SliceReply { leased: amount, available: amount, target: 0, wait_ms: 0, share: amount };
    LeaseReply { generation: "0123456789abcdef.1800000000000000".into(), slices: [slice; RESOURCES] }
}

fn ask_the_store(account: &Account, limits: &Limits, leased: u64, now: Now) {
    let request = account.lease_request(limits, Occasion::Asked, now).unwrap();
    account.lease_reply(&request, &reply(leased), LEASE_LIFETIME, now);
}

/// Accounts that have made a call, and then none for two minutes.
fn rested(fleet: Option<&Arc<Fleet>>, limits: &Limits, count: usize) -> Vec<Arc<Account>> {
    let accounts: Vec<_> =
        (0..count).map(|_| fleet.map_or_else(Arc::default, |fleet| fleet.account())).collect();
    for account in &accounts {
        if fleet.is_some() {
            ask_the_store(account, limits, 1_000_000_000, at(0));
        }
        one_call(account, limits, at(0));
        if fleet.is_some() {
            ask_the_store(account, limits, 0, at(120));
            // That it has taken the smaller share is said once more.
            ask_the_store(account, limits, 0, at(120));
            assert!(!account.is_lease_due(Occasion::Renewal, at(120)));
        } else {
            let checkpoint = account.checkpoint(at(0)).unwrap();
            account.kept(&checkpoint);
            assert_eq!(account.checkpoint(at(120)), None);
        }
    }
    accounts
}

#[test]
fn a_tenant_without_calls_takes_less_than_a_kibibyte_in_every_store() {
    let mut measured = BTreeMap::new();
    for (name, store) in [("file", "file:state"), ("redis", "redis://127.0.0.1:1/0")] {
        let (of_fleet, _state) = gateway(store, 1);
        let limits = &of_fleet.snapshot().tenants()[0].limits().clone();
        let fleet = of_fleet.fleet.as_ref();
        // A footing on which leases count: the store need not be reached for that.
        measured.insert((name, "budgets"), each(|count| rested(fleet, limits, count)));
        measured.insert((name, "all"), each(|count| gateway(store, count)));
    }
    let (_registry, metrics) = metrics::registry();
    let names: Vec<_> = tenants(TENANTS).into_iter().map(|tenant| tenant.name).collect();
    let (deployment, model) = (DeploymentName::new("chat").unwrap(), ModelName::new("gpt-4o-mini").unwrap());
    let before = HEAP.current_usage();
    let series: Vec<_> = names.iter().map(|name| metrics.calls(name, &deployment, &model)).collect();
    println!("series of one deployment: {} bytes for each tenant", (HEAP.current_usage() - before) / TENANTS);
    drop(series);
    for ((store, what), bytes) in &measured {
        println!("{store:<6} {what:<8} {bytes:>5} bytes for each tenant");
    }
    for ((store, what), bytes) in measured {
        assert!(bytes < KIBIBYTE, "{what} of a tenant, store {store}: {bytes} bytes");
    }
}
