//! What was really processed and generated: the truth that a gateway's books are compared with.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

/// What a deployment, or all of them, did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Calls whose prompt was processed; one that the content filter refuses is among them.
    pub calls: u64,
    /// The tokens of those prompts.
    pub prompt_tokens: u64,
    /// The tokens generated, thought ones included, also for callers that were gone before they saw them.
    pub generated_tokens: u64,
    /// Calls answered to the end.
    pub finished: u64,
    /// Calls that ended before their answer did: the caller hung up, or a fault was asked for.
    pub abandoned: u64,
}

impl Totals {
    /// Prompt and answers together.
    #[must_use]
    pub const fn tokens(&self) -> u64 {
        self.prompt_tokens + self.generated_tokens
    }

    /// Calls that are being answered.
    #[must_use]
    pub const fn open(&self) -> u64 {
        self.calls - self.finished - self.abandoned
    }
}

/// Tokens processed or generated at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Burst {
    /// When.
    pub at: Instant,
    /// Of a prompt or of an answer.
    pub tokens: u64,
}

/// The books of all deployments.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    accounts: Mutex<HashMap<String, Arc<Account>>>,
    /// Whether it is kept when tokens were used, and not only how many.
    timed: bool,
}

/// The books of one deployment.
#[derive(Debug, Default)]
pub(crate) struct Account {
    calls: AtomicU64,
    prompt_tokens: AtomicU64,
    generated_tokens: AtomicU64,
    finished: AtomicU64,
    abandoned: AtomicU64,
    timeline: Option<Mutex<Vec<Burst>>>,
}

/// A call being answered. One that is dropped before it finished was abandoned.
#[derive(Debug)]
pub(crate) struct Entry {
    account: Arc<Account>,
    finished: bool,
}

impl Ledger {
    pub(crate) fn new(timed: bool) -> Self {
        Self { timed, ..Self::default() }
    }

    pub(crate) fn account(&self, deployment: &str) -> Arc<Account> {
        let mut accounts = self.accounts.lock();
        if let Some(account) = accounts.get(deployment) {
            return Arc::clone(account);
        }
        let account = Account { timeline: self.timed.then(Mutex::default), ..Account::default() };
        Arc::clone(accounts.entry(deployment.to_owned()).or_insert_with(|| Arc::new(account)))
    }

    pub(crate) fn timeline(&self, deployment: &str) -> Vec<Burst> {
        let accounts = self.accounts.lock();
        let timeline = accounts.get(deployment).and_then(|account| account.timeline.as_ref());
        timeline.map(|timeline| timeline.lock().clone()).unwrap_or_default()
    }

    pub(crate) fn totals(&self, deployment: &str) -> Totals {
        self.accounts.lock().get(deployment).map(|account| account.totals()).unwrap_or_default()
    }

    pub(crate) fn all(&self) -> Totals {
        self.accounts.lock().values().fold(Totals::default(), |sum, account| {
            let Totals { calls, prompt_tokens, generated_tokens, finished, abandoned } = account.totals();
            Totals {
                calls: sum.calls + calls,
                prompt_tokens: sum.prompt_tokens + prompt_tokens,
                generated_tokens: sum.generated_tokens + generated_tokens,
                finished: sum.finished + finished,
                abandoned: sum.abandoned + abandoned,
            }
        })
    }
}

impl Account {
    /// Opens a call whose prompt is being processed.
    pub(crate) fn open(self: &Arc<Self>, prompt_tokens: u64) -> Entry {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.prompt_tokens.fetch_add(prompt_tokens, Ordering::SeqCst);
        self.note(prompt_tokens);
        Entry { account: Arc::clone(self), finished: false }
    }

    fn note(&self, tokens: u64) {
        if let Some(timeline) = &self.timeline {
            // Read under the lock, so that the timeline is in order.
            let mut timeline = timeline.lock();
            timeline.push(Burst { at: Instant::now(), tokens });
        }
    }

    fn totals(&self) -> Totals {
        // How calls ended is read before how many there were, so that no reader sees more ends than calls.
        let finished = self.finished.load(Ordering::SeqCst);
        let abandoned = self.abandoned.load(Ordering::SeqCst);
        Totals {
            finished,
            abandoned,
            calls: self.calls.load(Ordering::SeqCst),
            prompt_tokens: self.prompt_tokens.load(Ordering::SeqCst),
            generated_tokens: self.generated_tokens.load(Ordering::SeqCst),
        }
    }
}

impl Entry {
    pub(crate) fn generated(&self, tokens: u64) {
        self.account.generated_tokens.fetch_add(tokens, Ordering::SeqCst);
        self.account.note(tokens);
    }

    /// The whole answer was handed to the connection.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let ended = if self.finished { &self.account.finished } else { &self.account.abandoned };
        ended.fetch_add(1, Ordering::SeqCst);
    }
}
