//! Directories that cannot be used, and disks that fill up.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use gateway_tests::harness::{Config, DEADLINE, Gateway, Protocol, Site, wait_until};
use gateway_tests::simulator::Simulator;
use rustix::process::{Pid, Signal, kill_process};

use super::{azure, call, number, started, total};

fn site(azure: &Simulator) -> Site {
    let site = Site::new(azure, &Config::for_simulator(azure).unwrap()).unwrap();
    site.add_tenant("acme", None).unwrap();
    site
}

/// What a gateway that does not start says last.
fn refusal(mut serve: Command) -> String {
    let output = serve.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    let line = said.lines().last().unwrap_or_else(|| panic!("it said nothing"));
    assert!(line.starts_with("error: store: "), "{said}");
    line.to_owned()
}

#[test]
fn a_second_gateway_on_the_same_directory_is_refused() {
    let azure = azure();
    let gateway = site(&azure).start().unwrap();
    let said = refusal(gateway.site().command(&["serve"]).unwrap());
    let state = gateway.site().path().join("state");
    assert!(
        said.contains(&format!("{} is in use by process {}: stop", state.display(), gateway.pid())),
        "{said}"
    );
    let site = gateway.kill().unwrap();
    site.start().unwrap();
}

#[test]
fn a_damaged_file_is_named_with_what_to_do() {
    let azure = azure();
    let site = site(&azure);
    let (site, _) = site.start().unwrap().terminate().unwrap();
    let file = site.path().join("state/gateway.redb");
    fs::write(&file, "once this was a database").unwrap();
    let said = refusal(site.command(&["usage"]).unwrap());
    assert!(said.contains(&format!("{} is damaged (", file.display())), "{said}");
    assert!(said.ends_with("put a copy in its place, or move it away to start with empty books"), "{said}");
    fs::rename(&file, file.with_extension("damaged")).unwrap();
    site.start().unwrap();
}

#[test]
fn a_directory_that_cannot_be_written_is_named_with_what_to_do() {
    let azure = azure();
    let site = site(&azure);
    let state = site.path().join("state");
    fs::create_dir(&state).unwrap();
    let mut serve = site.command(&["serve"]).unwrap();
    if rustix::process::geteuid().is_root() {
        // Nothing is read-only for root.
        let readable =
            |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        readable(site.path(), 0o755);
        readable(&site.path().join("tenants.toml"), 0o644);
        serve.uid(65_534);
    } else {
        fs::set_permissions(&state, fs::Permissions::from_mode(0o555)).unwrap();
    }
    let said = refusal(serve);
    assert!(said.contains(&format!("{}/gateway.redb: ", state.display())), "{said}");
    assert!(said.ends_with("; let the gateway's user write there, or change `store.url`"), "{said}");
}

/// The gateway sees a small file system of its own where its store is; the test sees it through `/proc`.
#[tokio::test]
async fn a_full_disk_stops_no_call_and_loses_nothing() {
    let azure = azure();
    let site = Site::new(&azure, &Config::for_simulator(&azure).unwrap()).unwrap();
    let key = site.add_tenant("acme", None).unwrap().primary;
    fs::create_dir(site.path().join("state")).unwrap();
    let gateway = site.start_in("mount -t tmpfs -o size=1m store state").unwrap();
    gateway.ready().await.unwrap();
    let state = format!("/proc/{}/root{}/state", gateway.pid(), gateway.site().path().display());
    let ballast = Path::new(&state).join("ballast");
    let mut client = gateway.connect(Protocol::Http1).await.unwrap();
    let store_is_up = async || {
        let up = async || gateway.metric("gateway_store_up", &[]).await.unwrap() > 0.5;
        wait_until("the store is up", up).await.unwrap();
    };
    store_is_up().await;
    let mut filler = fs::File::create(&ballast).unwrap();
    let began = Instant::now();
    let problem = loop {
        // A file that is opened anew may have become smaller, so that there is room again.
        let full = std::iter::repeat_with(|| filler.write_all(&[1; 512])).find_map(Result::err).unwrap();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        let reply = call(&mut client, &key, 10, false).await.unwrap();
        assert!(reply.status.is_success() || reply.status == 503, "{reply:?}");
        let status = gateway.admin_page("/status").await.unwrap().json().unwrap();
        if let Some(problem) = status["store"]["problem"].as_str() {
            break problem.to_owned();
        }
        assert!(began.elapsed() < DEADLINE, "the store does not notice that its disk is full");
    };
    assert!(problem.contains("make room there"), "{problem}");
    assert_eq!(call(&mut client, &key, 10, false).await.unwrap().status, 200);

    drop(filler);
    fs::remove_file(ballast).unwrap();
    store_is_up().await;
    let (ledger, truth) = (total(&gateway).await, azure.all_totals());
    assert_eq!((number(&ledger, "calls"), number(&ledger, "tokens")), (truth.calls, truth.tokens()));
}

#[tokio::test]
async fn a_disk_that_is_full_at_the_start_stops_no_call_and_loses_nothing() {
    let azure = azure();
    let quota = "[tiers.default]\ntoken_quota = { tokens = 1000000, period = \"yearly\" }\n";
    let config = Config::for_simulator(&azure).unwrap().with(quota).unwrap();
    let site = Site::new(&azure, &config).unwrap();
    let key = site.add_tenant("acme", None).unwrap().primary;
    let gateway = started(site).await;
    let mut client = gateway.connect(Protocol::Http1).await.unwrap();
    assert_eq!(call(&mut client, &key, 50, false).await.unwrap().status, 200);
    assert_eq!(number(&total(&gateway).await, "calls"), 1);
    drop(client);
    let site = gateway.kill().unwrap();
    fs::rename(site.path().join("state"), site.path().join("kept")).unwrap();
    fs::create_dir(site.path().join("state")).unwrap();
    let full = "mount -t tmpfs -o size=4m store state && cp kept/* state/ && ! cat /dev/zero > state/ballast";
    let gateway = site.start_in(full).unwrap();
    gateway.ready().await.unwrap();
    let up = async || gateway.metric("gateway_store_up", &[]).await.unwrap() > 0.5;
    assert!(!up().await);
    let used = async || {
        let status = gateway.admin_page("/status").await.unwrap().json().unwrap();
        assert!(
            status["store"]["problem"].as_str().is_none_or(|problem| problem.contains("make room there"))
        );
        status["tenants"][0]["quotas"][0]["tokens"].as_u64().unwrap()
    };
    assert_eq!(used().await, azure.all_totals().tokens(), "the budget goes on from what was kept");
    let mut client = gateway.connect(Protocol::Http1).await.unwrap();
    assert_eq!(call(&mut client, &key, 50, false).await.unwrap().status, 200);
    assert_eq!(used().await, azure.all_totals().tokens());
    assert!(!up().await);

    fs::remove_file(format!("/proc/{}/root{}/state/ballast", gateway.pid(), gateway.site().path().display()))
        .unwrap();
    wait_until("the store is up", up).await.unwrap();
    let (ledger, truth) = (total(&gateway).await, azure.all_totals());
    assert_eq!((number(&ledger, "calls"), number(&ledger, "tokens")), (truth.calls, truth.tokens()));
}

#[test]
fn a_full_disk_without_books_is_named_with_what_to_do() {
    let azure = azure();
    let site = site(&azure);
    fs::create_dir(site.path().join("state")).unwrap();
    let full = "mount -t tmpfs -o size=64k store state && ! cat /dev/zero > state/ballast";
    let error = format!("{:#}", site.start_in(full).unwrap_err());
    assert!(error.contains("make room there"), "{error}");
}

#[tokio::test]
async fn files_that_are_deleted_while_the_gateway_runs_are_made_anew_with_all_that_it_knows() {
    for whole_directory in [true, false] {
        let azure = azure();
        let quota = "[tiers.default]\ntoken_quota = { tokens = 1000000, period = \"yearly\" }\n";
        let config = Config::for_simulator(&azure).unwrap().with(quota).unwrap();
        let site = Site::new(&azure, &config).unwrap();
        let [busy, quiet] = ["busy", "quiet"].map(|name| site.add_tenant(name, None).unwrap().primary);
        let gateway = started(site).await;
        let mut client = gateway.connect(Protocol::Http1).await.unwrap();
        assert_eq!(call(&mut client, &quiet, 50, false).await.unwrap().status, 200);
        assert_eq!(call(&mut client, &busy, 10, true).await.unwrap().status, 200);
        assert_eq!(number(&total(&gateway).await, "calls"), 2);
        let state = gateway.site().path().join("state");
        if whole_directory {
            fs::remove_dir_all(&state).unwrap();
        } else {
            fs::rename(state.join("gateway.redb"), state.join("moved-away")).unwrap();
            fs::remove_file(state.join("journal.redb")).unwrap();
        }
        let log = gateway.log().clone();
        let said = tokio::task::spawn_blocking(move || {
            log.wait_for("the store is back, and has all that was counted meanwhile")?;
            log.wait_for("the store is down: budgets and the ledger are kept in memory, and in the journal if that can be written, until it is back")
        });
        let said = said.await.unwrap().unwrap();
        assert!(
            said["problem"].as_str().unwrap().contains("were deleted or replaced while the gateway runs"),
            "{said}"
        );
        let metric = async |name: &'static str| gateway.metric(name, &[]).await.unwrap();
        assert!(metric("gateway_store_up").await > 0.5);
        assert_eq!(call(&mut client, &busy, 10, false).await.unwrap().status, 200);
        assert_eq!(
            number(&total(&gateway).await, "calls"),
            azure.all_totals().calls,
            "the hour is known still"
        );
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        for file in ["gateway.redb", "journal.redb", "owner.json"] {
            // The journal is made when it is needed first.
            assert!(!state.join(file).exists() || mode(&state.join(file)) == 0o600, "{file}");
        }
        assert_eq!(mode(&state), 0o700);
        drop(client);
        let gateway = started(gateway.kill().unwrap()).await;
        let status = gateway.admin_page("/status").await.unwrap().json().unwrap();
        let books = status["tenants"].as_array().unwrap().iter();
        let books: u64 = books.map(|tenant| tenant["quotas"][0]["tokens"].as_u64().unwrap()).sum();
        assert_eq!(books, azure.all_totals().tokens(), "{status}");
    }
}

/// The disk takes nothing any more, from now until the process ends, and says so after a while.
fn break_disk(gateway: &Gateway, after: Duration) -> Child {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"]);
    strace.args(["-e", &format!("inject=fsync,fdatasync:error=EIO:delay_enter={}", after.as_micros())]);
    strace.args(["-p", &gateway.pid().to_string()]);
    strace.spawn().unwrap()
}

#[tokio::test]
async fn what_a_broken_disk_does_not_take_survives_a_kill_and_a_stop() {
    // The last is slower to fail than the next checkpoint is to come.
    for (kill, fails_after) in [(true, 0), (false, 0), (false, 700)] {
        let azure = azure();
        let site = Site::new(&azure, &Config::for_simulator(&azure).unwrap()).unwrap();
        let key = site.add_tenant("acme", None).unwrap().primary;
        let gateway = started(site).await;
        let mut client = gateway.connect(Protocol::Http1).await.unwrap();
        let mut strace = break_disk(&gateway, Duration::from_millis(fails_after));
        let metric = async |name: &'static str| gateway.metric(name, &[]).await.unwrap();
        wait_until("the store is down", async || {
            assert_eq!(call(&mut client, &key, 10, false).await.unwrap().status, 200);
            metric("gateway_store_up").await < 0.5
        })
        .await
        .unwrap();
        // Another kind of answer, of which the database has nothing yet and can be asked nothing.
        assert_eq!(call(&mut client, &key, 10, true).await.unwrap().status, 200);
        let called = Instant::now();
        wait_until("what was used is kept all the same", async || {
            let since = called.elapsed().as_secs_f64();
            metric("gateway_store_age_seconds").await < since
        })
        .await
        .unwrap();
        drop(client);
        let site = if kill { gateway.kill().unwrap() } else { gateway.terminate().unwrap().0 };
        strace.wait().unwrap();
        let gateway = started(site).await;
        let (ledger, truth) = (total(&gateway).await, azure.all_totals());
        assert_eq!((number(&ledger, "calls"), number(&ledger, "tokens")), (truth.calls, truth.tokens()));
    }
}

#[tokio::test]
async fn a_disk_that_breaks_after_long_takes_nothing_back_that_was_kept() {
    let azure = azure();
    let site = Site::new(&azure, &Config::for_simulator(&azure).unwrap()).unwrap();
    let key = site.add_tenant("acme", None).unwrap().primary;
    let gateway = started(site).await;
    let mut client = gateway.connect(Protocol::Http1).await.unwrap();
    let mut strace = break_disk(&gateway, Duration::from_secs(15));
    let metric = async |name: &'static str| gateway.metric(name, &[]).await.unwrap();
    wait_until("a commit waits for the disk", async || {
        assert_eq!(call(&mut client, &key, 10, false).await.unwrap().status, 200);
        metric("gateway_store_on_disk_age_seconds").await > 1.5
    })
    .await
    .unwrap();
    let called = Instant::now();
    wait_until("the journal has the last call", async || {
        let since = called.elapsed().as_secs_f64();
        metric("gateway_store_age_seconds").await < since
    })
    .await
    .unwrap();
    assert!(metric("gateway_store_up").await > 0.5, "the disk was to break after this");
    wait_until("the disk breaks", async || metric("gateway_store_up").await < 0.5).await.unwrap();
    drop(client);
    let site = gateway.kill().unwrap();
    strace.wait().unwrap();
    let gateway = started(site).await;
    let (ledger, truth) = (total(&gateway).await, azure.all_totals());
    assert_eq!((number(&ledger, "calls"), number(&ledger, "tokens")), (truth.calls, truth.tokens()));
}

#[tokio::test]
async fn a_file_put_in_the_place_of_a_broken_one_gets_all_that_is_known() {
    let azure = azure();
    let quota = "[tiers.default]\ntoken_quota = { tokens = 1000000, period = \"yearly\" }\n";
    let config = Config::for_simulator(&azure).unwrap().with(quota).unwrap();
    let site = Site::new(&azure, &config).unwrap();
    let [busy, quiet] = ["busy", "quiet"].map(|name| site.add_tenant(name, None).unwrap().primary);
    let gateway = started(site).await;
    let mut client = gateway.connect(Protocol::Http1).await.unwrap();
    assert_eq!(call(&mut client, &quiet, 50, false).await.unwrap().status, 200);
    assert_eq!(number(&total(&gateway).await, "calls"), 1);
    let mut strace = break_disk(&gateway, Duration::ZERO);
    let up = async || gateway.metric("gateway_store_up", &[]).await.unwrap() > 0.5;
    wait_until("the store is down", async || {
        assert_eq!(call(&mut client, &busy, 10, false).await.unwrap().status, 200);
        !up().await
    })
    .await
    .unwrap();
    let store = gateway.site().path().join("state");
    fs::rename(store.join("gateway.redb"), store.join("moved-away")).unwrap();
    // At the end of the tracer the disk is whole again.
    let tracer = Pid::from_child(&strace);
    kill_process(tracer, Signal::TERM).unwrap();
    strace.wait().unwrap();
    wait_until("the store is back", up).await.unwrap();
    assert_eq!(number(&total(&gateway).await, "calls"), azure.all_totals().calls);
    drop(client);
    let gateway = started(gateway.kill().unwrap()).await;
    let status = gateway.admin_page("/status").await.unwrap().json().unwrap();
    let books = status["tenants"].as_array().unwrap().iter();
    let books: u64 = books.map(|tenant| tenant["quotas"][0]["tokens"].as_u64().unwrap()).sum();
    assert_eq!(books, azure.all_totals().tokens(), "{status}");
}

#[test]
fn a_shared_store_that_is_away_is_named_without_its_password() {
    let azure = azure();
    let config =
        Config::for_simulator(&azure).unwrap().with("[store]\nurl = \"redis://me:secret@127.0.0.1:1/0\"\n");
    let site = Site::new(&azure, &config.unwrap()).unwrap();
    site.add_tenant("acme", None).unwrap();
    let said = refusal(site.command(&["usage"]).unwrap());
    assert!(said.contains("store: redis://…@127.0.0.1:1/0: ") && !said.contains("secret"), "{said}");
}
