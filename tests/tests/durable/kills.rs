//! SIGKILL under load, fifty times, and a few times more where the disk is slow.

use std::time::Duration;

use gateway_tests::harness::{Config, Gateway, Protocol, Site, wait_until};
use gateway_tests::simulator::{Behaviour, Simulator};
use tokio::task::JoinSet;

use super::{SLOW, azure, call, number, started, total};

const GATEWAYS: usize = 5;
const KILLS_EACH: usize = 10;
const KILLS_EACH_ON_SLOW_DISKS: usize = 2;
const CALLERS: u64 = 3;
const OUTPUT: u64 = 12;
/// The prompt is held at its bytes until it is tokenised; this body has fewer.
const MOST_HELD: u64 = 200 + OUTPUT;
/// How often is looked at what was generated.
const TICK: Duration = Duration::from_millis(5);
/// What a kill may lose: a second, and where the machine is so busy that ticks come late, the work of as many ticks.
const BOUND: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disk {
    AsItIs,
    Slow,
}

#[test]
fn fifty_kills_under_load_lose_less_than_a_second_each() {
    on_each_gateway(Disk::AsItIs, KILLS_EACH);
}

#[test]
fn a_slow_disk_makes_a_kill_lose_no_more() {
    on_each_gateway(Disk::Slow, KILLS_EACH_ON_SLOW_DISKS);
}

fn on_each_gateway(disk: Disk, kills: usize) {
    std::thread::scope(|scope| {
        for number in 0..GATEWAYS {
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(kill_again_and_again(number, disk, kills));
            });
        }
    });
}

async fn kill_again_and_again(seed: usize, disk: Disk, kills: usize) {
    let azure = azure();
    azure.behave(Behaviour { tokens: OUTPUT, chunk_delay: Duration::from_millis(3), ..Behaviour::default() });
    let state = tempfile::tempdir().unwrap();
    let piece = format!(
        "[tiers.default]\ntoken_quota = {{ tokens = 1000000000, period = \"yearly\" }}\n[store]\nurl = \"file:{}\"\n",
        state.path().display()
    );
    let config = Config::for_simulator(&azure).unwrap().with(&piece).unwrap();
    // One encoder to load at a start is enough.
    let config = config.without(&["deployments", "embed"]).without(&["deployments", "instruct"]);
    let site = Site::new(&azure, &config).unwrap();
    let key = site.add_tenant("acme", None).unwrap().primary;
    let mut gateway = started(site).await;
    let mut booked = 0;
    for round in 0..kills {
        if disk == Disk::Slow {
            let (site, _) = gateway.terminate().unwrap();
            gateway = site.start_on_slow_disk(SLOW).unwrap();
            gateway.ready().await.unwrap();
        }
        let before = azure.all_totals().tokens();
        // Some kills come before the first checkpoint, most after a few, each at another moment between two; on a slow
        // disk during the first commit.
        let ticks = match disk {
            Disk::AsItIs if round % 5 == 0 => 30,
            Disk::AsItIs => BOUND + 20,
            Disk::Slow => 2 * BOUND,
        } + (seed * 19 + round * 13) % 90;
        let (mut callers, history) = load(&azure, &gateway, &key, ticks).await;
        let site = gateway.kill().unwrap();
        while callers.join_next().await.is_some() {}
        wait_until("the simulator has let go", async || azure.all_totals().open() == 0).await.unwrap();
        let generated = azure.all_totals().tokens() - before;
        let must_be_kept = history.iter().rev().nth(BOUND).map_or(0, |tokens| tokens - before);

        gateway = started(site).await;
        let ledger = number(&total(&gateway).await, "tokens");
        let kept = ledger - booked;
        booked = ledger;
        let what = format!("gateway {seed}, kill {round} after {ticks} ticks");
        assert!(kept >= must_be_kept, "{what}: {kept} of {must_be_kept} are kept");
        assert!(kept <= generated + CALLERS * MOST_HELD, "{what}: {kept} booked for {generated}");
        let status = gateway.admin_page("/status").await.unwrap().json().unwrap();
        let books = status["tenants"][0]["quotas"][0]["tokens"].as_u64().unwrap();
        assert!(books >= ledger, "{what}: the quota has {books}, the ledger {ledger}");
        assert!(ticks < BOUND || must_be_kept > 0, "{what}: the test is too slow to prove anything");
    }
    assert!(booked > 0);
}

/// Calls for a while, and gives the calls still running with what was generated when.
async fn load(azure: &Simulator, gateway: &Gateway, key: &str, ticks: usize) -> (JoinSet<()>, Vec<u64>) {
    let before = azure.all_totals().tokens();
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let mut client = gateway.connect(Protocol::Http1).await.unwrap();
        let key = key.to_owned();
        callers.spawn(async move {
            // The kill ends it.
            while call(&mut client, &key, OUTPUT, caller % 2 == 0).await.is_ok() {}
        });
    }
    wait_until("the first call has arrived", async || azure.all_totals().tokens() > before).await.unwrap();
    let mut history = Vec::new();
    for _tick in 0..ticks {
        history.push(azure.all_totals().tokens());
        tokio::time::sleep(TICK).await;
    }
    (callers, history)
}
