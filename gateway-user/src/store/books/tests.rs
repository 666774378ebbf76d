use std::fs;
use std::num::NonZeroU32;

use super::*;
use crate::ledger::{Adjustment, Counted, Note, Pending, Signed};
use crate::limits::{Admission, Ask, Limits, Period, Used};
use crate::names::{DeploymentName, ModelName};
use crate::units::{NanoDollars, Prices, TokenPrice, Tokens};

const NOW: Now = Now { monotonic_ms: 5_000, utc_seconds: 1_709_212_455 };
const PRICES: Prices = Prices {
    input: TokenPrice::from_pico_dollars(150_000),
    cached_input: TokenPrice::from_pico_dollars(75_000),
    output: TokenPrice::from_pico_dollars(600_000),
};

fn acme() -> TenantName {
    TenantName::new("acme").unwrap()
}

fn key(kind: Kind) -> Key {
    Key {
        tenant: acme(),
        deployment: DeploymentName::new("chat").ok(),
        model: ModelName::new("gpt-4o-mini").ok(),
        kind,
    }
}

fn sums(calls: u64) -> Sums {
    Sums { calls, prompt: Tokens::new(100 * calls), cost: NanoDollars::new(calls), ..Sums::default() }
}

fn admit(account: &Arc<Account>) -> Admission {
    let limits = Limits { tokens_per_minute: NonZeroU32::new(1000), ..Limits::default() };
    let output = Tokens::new(50);
    let ask = Ask {
        prompt: Tokens::new(100),
        output_named: Some(output),
        output_most: output,
        answers: 1,
        prices: PRICES,
    };
    Admission::admit(account, &limits, &ask, NOW).unwrap().0
}

/// What has changed and is not in the main database.
fn changes(number: u64, account: &Arc<Account>, pending: &Pending) -> Changes {
    let taken = account.checkpoint(NOW).into_iter();
    Changes {
        number,
        hour: hour_of(NOW.utc_seconds),
        accounts: taken.map(|taken| (acme(), Arc::clone(account), taken)).collect(),
        rows: pending.rows(),
        gone: Vec::new(),
    }
}

fn commit(books: &Books, account: &Arc<Account>, pending: &mut Pending) {
    let changes = changes(1, account, pending);
    books.commit(&changes).unwrap();
    changes.accounts.iter().for_each(|(_, account, checkpoint)| account.kept(checkpoint));
    pending.written(&changes.rows, changes.hour);
}

/// Opens the books as the next process does.
fn recover(directory: &Path) -> (Books, HashMap<TenantName, Arc<Account>>) {
    let Recovered { books, accounts, .. } = Books::recover(directory, NOW).unwrap();
    (books, accounts)
}

/// The calls of each kind, in the ledger's whole time.
fn calls(books: &Books) -> Vec<(String, u64)> {
    let query = Query::parse("since=1970-01-01&by=kind").unwrap();
    let report = books.report(&query, NOW.utc_seconds).unwrap();
    report.lines.into_iter().map(|mut line| (line.cells.remove(0), line.sums.calls)).collect()
}

#[test]
fn accounts_and_ledger_survive_and_open_calls_are_settled_once() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("a/b");
    let (books, accounts) = recover(&directory);
    assert!(accounts.is_empty());
    let account = Arc::new(Account::default());
    let settled = admit(&account);
    settled.settle(
        Used { tokens: Tokens::new(120), output: Tokens::new(20), cost: NanoDollars::new(27_000) },
        NOW,
    );
    let open = admit(&account);
    let (single, stream) = (key(Kind::Single), key(Kind::Stream));
    let mut pending = Pending::default();
    let hour = hour_of(NOW.utc_seconds);
    pending.collect(1, hour, Counted::each(&[(&single, sums(1)), (&stream, sums(2))]));
    commit(&books, &account, &mut pending);
    drop(books);

    // The process was killed with one call open.
    let of = |kinds: &[(&str, u64)]| -> Vec<_> {
        kinds.iter().map(|(kind, calls)| ((*kind).to_owned(), *calls)).collect()
    };
    for _again in 0..2 {
        let (books, accounts) = recover(&directory);
        let counters = accounts[&acme()].counters(NOW);
        assert_eq!(counters.tokens_in_window, Tokens::new(270));
        assert_eq!(counters.periods[Period::Daily.index()].tokens, Tokens::new(270));
        assert_eq!((counters.open_calls, counters.tokens_held), (0, Tokens::ZERO));
        assert_eq!(calls(&books), of(&[("recovered", 1), ("single", 1), ("stream", 2)]));
    }
    drop(open);

    // A later process adds to the rows of the same hour.
    let (books, accounts) = recover(&directory);
    let mut pending = Pending::default();
    pending.collect(2, hour, Counted::each(&[(&single, sums(5))]));
    commit(&books, &accounts[&acme()], &mut pending);
    pending.collect(3, hour, Counted::each(&[(&single, sums(6))]));
    commit(&books, &accounts[&acme()], &mut pending);
    assert_eq!(calls(&books), of(&[("recovered", 1), ("single", 7), ("stream", 2)]));
}

/// One call settled, one open, and what the ledger has of them.
fn used(account: &Arc<Account>, pending: &mut Pending, calls: u64) -> Admission {
    admit(account).settle(
        Used { tokens: Tokens::new(120), output: Tokens::new(20), cost: NanoDollars::new(27_000) },
        NOW,
    );
    pending.collect(calls, hour_of(NOW.utc_seconds), Counted::each(&[(&key(Kind::Single), sums(calls))]));
    admit(account)
}

#[test]
fn what_a_slow_disk_does_not_have_comes_from_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let (books, _) = recover(folder.path());
    let (account, mut pending) = (Arc::new(Account::default()), Pending::default());
    let _first = used(&account, &mut pending, 1);
    let committing = changes(1, &account, &pending);
    let _second = used(&account, &mut pending, 2);
    books.note(&changes(2, &account, &pending)).unwrap();
    let _third = used(&account, &mut pending, 3);
    books.note(&changes(3, &account, &pending)).unwrap();
    // Whether the commit that took so long came to its end, or not.
    for committed in [false, true] {
        if committed {
            books.commit(&committing).unwrap();
        }
        let copy = tempfile::tempdir().unwrap();
        for file in [MAIN, JOURNAL] {
            fs::copy(folder.path().join(file), copy.path().join(file)).unwrap();
        }
        // Read without a gateway first, and then by one.
        assert_eq!(calls(&Books::open_existing(copy.path()).unwrap()), [("single".to_owned(), 3)]);
        for _again in 0..2 {
            let (books, accounts) = recover(copy.path());
            assert_eq!(calls(&books), [("recovered".to_owned(), 3), ("single".to_owned(), 3)]);
            let counters = accounts[&acme()].counters(NOW);
            assert_eq!(counters.tokens_in_window, Tokens::new(3 * 120 + 3 * 150), "{committed}");
        }
    }
}

#[test]
fn a_journal_that_is_older_or_of_other_books_or_damaged_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join(JOURNAL);
    let (books, _) = recover(folder.path());
    let (account, mut pending) = (Arc::new(Account::default()), Pending::default());
    drop(used(&account, &mut pending, 1));
    books.note(&changes(1, &account, &pending)).unwrap();
    let noted = fs::read(&journal).unwrap();
    drop(used(&account, &mut pending, 2));
    let younger = changes(2, &account, &pending);
    books.commit(&younger).unwrap();
    drop(books);
    let Recovered { books, number, .. } = Books::recover(folder.path(), NOW).unwrap();
    assert_eq!((calls(&books), number), (vec![("single".to_owned(), 2)], 2));
    drop(books);

    let mut overwritten = noted.clone();
    overwritten[8192..].fill(0x5a);
    for damaged in [&b"never was one"[..], &[], &noted[..noted.len() / 2], &overwritten] {
        fs::write(&journal, damaged).unwrap();
        let (books, _) = recover(folder.path());
        assert_eq!(calls(&books), [("single".to_owned(), 2)]);
    }

    fs::write(&journal, &noted).unwrap();
    fs::rename(folder.path().join(MAIN), folder.path().join("moved-away")).unwrap();
    let (books, accounts) = recover(folder.path());
    assert!(calls(&books).is_empty() && accounts.is_empty());
}

#[test]
fn rows_older_than_the_retention_are_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let (books, _) = recover(folder.path());
    let hour = hour_of(NOW.utc_seconds);
    let key = key(Kind::Single);
    let mut pending = Pending::default();
    for (age, calls) in [(RETENTION_HOURS, 1), (RETENTION_HOURS - 1, 3), (0, 7)] {
        pending.collect(1, hour - age, Counted::each(&[(&key, sums(calls))]));
    }
    books
        .commit(&Changes { number: 1, hour, accounts: Vec::new(), rows: pending.rows(), gone: Vec::new() })
        .unwrap();
    assert_eq!(calls(&books), [("single".to_owned(), 7)]);
    drop(books);
    let later = Now { utc_seconds: NOW.utc_seconds + 3600, ..NOW };
    let Recovered { books, .. } = Books::recover(folder.path(), later).unwrap();
    assert_eq!(calls(&books), [("single".to_owned(), 6)]);
    let much_later = Now { utc_seconds: NOW.utc_seconds + 401 * 86_400, ..NOW };
    drop(books);
    let Recovered { books, .. } = Books::recover(folder.path(), much_later).unwrap();
    assert_eq!(calls(&books), []);
}

#[test]
fn an_account_whose_periods_are_over_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let (books, _) = recover(folder.path());
    let account = Arc::new(Account::default());
    drop(admit(&account));
    commit(&books, &account, &mut Pending::default());
    drop(books);
    let next_year = Now { utc_seconds: NOW.utc_seconds + 366 * 86_400, ..NOW };
    let Recovered { books, accounts, .. } = Books::recover(folder.path(), next_year).unwrap();
    assert!(accounts.is_empty());
    drop(books);
}

#[test]
fn the_account_of_a_removed_tenant_goes_when_it_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let (books, _) = recover(folder.path());
    let (account, mut pending) = (Arc::new(Account::default()), Pending::default());
    drop(admit(&account));
    account.removed(Some(&Limits::default()), NOW);
    commit(&books, &account, &mut pending);
    drop(books);
    let (books, accounts) = recover(folder.path());
    assert!(accounts.contains_key(&acme()), "its minute is not over");
    drop(books);
    let later = Now { utc_seconds: NOW.utc_seconds + 65, ..NOW };
    let Recovered { books, accounts, .. } = Books::recover(folder.path(), later).unwrap();
    assert!(accounts.is_empty(), "the year is not over, but no limit of the tenant was about it");
    commit(&books, &account, &mut pending);
    let gone = Changes { number: 2, hour: 0, accounts: Vec::new(), rows: Vec::new(), gone: vec![acme()] };
    books.commit(&gone).unwrap();
    drop(books);
    let (_books, accounts) = recover(folder.path());
    assert!(accounts.is_empty());
}

#[test]
fn a_directory_in_use_is_named_with_its_user() {
    let folder = tempfile::tempdir().unwrap();
    let (_books, _) = recover(folder.path());
    let said = Books::recover(folder.path(), NOW).unwrap_err().to_string();
    assert!(said.starts_with(&format!("store: {} is in use: stop", folder.path().display())), "{said}");
    super::super::Owner { pid: 4711, admin: ([127, 0, 0, 1], 9464).into() }.write(folder.path()).unwrap();
    let said = Books::open_existing(folder.path()).unwrap_err().to_string();
    assert!(said.contains(" is in use by process 4711: stop"), "{said}");
}

#[test]
fn a_store_that_is_down_is_still_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let (books, _) = recover(folder.path());
    let (account, mut pending) = (Arc::new(Account::default()), Pending::default());
    let full = || redb::Error::Io(io::ErrorKind::StorageFull.into());
    assert!(matches!(books.main.commit(|_| Err::<(), _>(full())), Err(StoreError::Io { .. })));
    // Neither a second gateway nor who reads the ledger may take the books, and with them the journal.
    assert!(matches!(Books::recover(folder.path(), NOW), Err(StoreError::InUse { .. })));
    assert!(matches!(Books::open_existing(folder.path()), Err(StoreError::InUse { .. })));
    drop(used(&account, &mut pending, 1));
    books.note(&changes(1, &account, &pending)).unwrap();
    assert!(matches!(books.main.commit(|_| Err::<(), _>(full())), Err(StoreError::Io { .. })));
    drop(books);
    let (books, _) = recover(folder.path());
    assert_eq!(calls(&books), [("single".to_owned(), 1)]);
}

#[test]
fn who_reads_the_ledger_makes_no_journal_that_the_gateway_may_not_write() {
    let folder = tempfile::tempdir().unwrap();
    drop(recover(folder.path()));
    let journal = folder.path().join(JOURNAL);
    fs::remove_file(&journal).unwrap();
    drop(Books::open_existing(folder.path()).unwrap());
    assert!(!journal.exists());
}

#[test]
fn a_damaged_file_is_refused_wherever_the_damage_is() {
    let folder = tempfile::tempdir().unwrap();
    let (books, _) = recover(folder.path());
    let account = Arc::new(Account::default());
    let key = key(Kind::Single);
    for hour in 0..500 {
        let mut pending = Pending::default();
        pending.collect(hour + 1, hour_of(NOW.utc_seconds) - hour, Counted::each(&[(&key, sums(hour + 1))]));
        if hour % 100 == 0 {
            commit(&books, &account, &mut pending);
        }
    }
    let path = books.path().to_owned();
    drop(books);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, b"not a database at all").unwrap();
    let said = Books::recover(folder.path(), NOW).unwrap_err();
    assert!(matches!(said, StoreError::Damaged { .. }), "{said}");
    assert!(said.to_string().contains("move it away to start with empty books"), "{said}");
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let said = Books::recover(folder.path(), NOW).unwrap_err();
    assert!(matches!(said, StoreError::Damaged { .. }), "{said}");
    // A page may be one that nothing uses: then the file is as good as it was.
    let mut refused = 0;
    for page in 0..whole.len() / 4096 {
        let mut damaged = whole.clone();
        damaged[page * 4096..(page + 1) * 4096].fill(0x5a);
        fs::write(&path, &damaged).unwrap();
        match Books::recover(folder.path(), NOW) {
            Ok(Recovered { books, .. }) => assert_eq!(calls(&books).len(), 1),
            Err(StoreError::Damaged { .. } | StoreError::Format { .. }) => refused += 1,
            Err(error) => panic!("page {page}: {error}"),
        }
    }
    assert!(refused > 0);
}

#[test]
fn a_file_where_the_directory_should_be_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("state");
    fs::write(&place, "").unwrap();
    let said = Books::recover(&place, NOW).unwrap_err().to_string();
    assert!(said.starts_with(&format!("store: {}: ", place.display())), "{said}");
    assert!(said.ends_with("; `store.url` must name a directory"), "{said}");
    assert!(matches!(Books::open_existing(&place), Err(StoreError::Absent { .. })));
}

/// A copy of the books that a gateway of the first format had left behind when it was killed.
fn of_the_first_format() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(MAIN), include_bytes!("format-1/gateway.redb")).unwrap();
    fs::write(folder.path().join(JOURNAL), include_bytes!("format-1/journal.redb")).unwrap();
    folder
}

#[test]
fn books_of_the_first_format_go_on_in_the_present_one() {
    let folder = of_the_first_format();
    let mut recovered = 2;
    // Read without a gateway first, which settles nothing, and then by one.
    assert_eq!(calls(&Books::open_existing(folder.path()).unwrap())[0], ("recovered".to_owned(), recovered));
    for _again in 0..2 {
        recovered = 4;
        let (books, accounts) = recover(folder.path());
        let of = |kind: &str, calls| (kind.to_owned(), calls);
        assert_eq!(calls(&books), [of("recovered", recovered), of("single", 2), of("stream", 4)]);
        let counters = accounts[&acme()].counters(NOW);
        assert_eq!(counters.tokens_in_window, Tokens::new(2 * 120 + 2 * 150));
        assert_eq!(counters.periods[Period::Yearly.index()].tokens, Tokens::new(2 * 120 + 2 * 150));
        let total =
            books.report(&Query::parse("since=1970-01-01").unwrap(), NOW.utc_seconds).unwrap().total();
        assert_eq!(total.prompt, Tokens::new(100 * (2 + 2 + 4) + 200));
        assert_eq!(
            total.assumed_tokens,
            Tokens::new(2 * 100 + 2 * 150),
            "all that was recovered, then and now"
        );
    }
}

#[test]
fn books_of_the_first_format_that_are_put_in_place_while_the_gateway_runs_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (books, _) = recover(folder.path());
    let full = || redb::Error::Io(io::ErrorKind::StorageFull.into());
    assert!(books.main.commit(|_| Err::<(), _>(full())).is_err());
    let other = of_the_first_format();
    fs::rename(other.path().join(MAIN), folder.path().join(MAIN)).unwrap();
    let (account, mut pending) = (Arc::new(Account::default()), Pending::default());
    drop(used(&account, &mut pending, 9));
    commit(&books, &account, &mut pending);
    let of = |kind: &str, calls| (kind.to_owned(), calls);
    assert_eq!(calls(&books), [of("recovered", 2), of("single", 1 + 9), of("stream", 4)]);
}

#[test]
fn books_of_a_later_version_are_refused_and_left_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let (books, _) = recover(folder.path());
    let later = |transaction: &WriteTransaction| {
        transaction.open_table(ABOUT)?.insert(FORMAT, format::CURRENT + 1)?;
        Ok(())
    };
    books.main.commit(later).unwrap();
    drop(books);
    for said in
        [Books::recover(folder.path(), NOW).unwrap_err(), Books::open_existing(folder.path()).unwrap_err()]
    {
        assert!(
            said.to_string().contains("was written by a later version of the gateway (its format is 3)"),
            "{said}"
        );
    }
}

#[test]
fn an_adjustment_keeps_its_trace() {
    let folder = tempfile::tempdir().unwrap();
    let (books, _) = recover(folder.path());
    let mut pending = Pending::default();
    let adjustment = Adjustment {
        tenant: acme(),
        at: NOW.utc_seconds,
        tokens: Signed::given_back(120),
        cost: Signed::charged(7),
        note: Note::new("the brown-out of May").unwrap(),
    };
    pending.adjust(1, hour_of(NOW.utc_seconds), std::iter::once(adjustment));
    commit(&books, &Arc::new(Account::default()), &mut pending);
    assert_eq!(pending.rows(), []);
    drop(books);
    let (books, _) = recover(folder.path());
    let report = books.report(&Query::parse("since=1970-01-01&by=kind").unwrap(), NOW.utc_seconds).unwrap();
    assert_eq!(report.lines[0].cells, ["adjusted"]);
    assert_eq!(
        (report.total().adjusted_tokens(), report.total().adjusted_dollars()),
        (-120, "0.000000007".to_owned())
    );
    assert_eq!(report.adjusted[0].note, "the brown-out of May");
    assert_eq!(report.adjusted[0].at, "2024-02-29T13:14:15Z");
}
