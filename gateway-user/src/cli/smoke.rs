//! `aoai-gateway smoke`: shows the proof that streaming streams, as it is made.

use std::convert::Infallible;
use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use http::HeaderMap;

use crate::config::Endpoint;
use crate::secret::{MalformedKey, SubscriptionKey};
use crate::smoke::pace::{FEWEST_CHUNKS, Pace, SHORTEST_ANSWER, Verdict};
use crate::smoke::{self, SmokeError, Step, Subject, Trust, Usage};

/// Which gateway to try.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct SmokeArgs {
    /// Where the gateway is, such as `https://gateway.example:8443`; a path of the API at its end (`/openai`, `/openai/v1`) is
    /// left out
    #[arg(long)]
    pub url: String,
    /// A tenant's key
    #[arg(long, env = "AOAI_GATEWAY_KEY", hide_env_values = true, value_parser = presented)]
    pub key: PresentedKey,
    /// A deployment for chat completions that the tenant may call; by default its first one that answers them
    #[arg(long)]
    pub deployment: Option<String>,
    /// Trust the authorities in this PEM file beside the system's, and its certificates themselves, such as a self-signed
    /// one that `openssl req -x509` made
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Take any certificate: whoever answers gets the key
    #[arg(long, conflicts_with = "ca")]
    pub insecure: bool,
}

/// What was given as a key. It is judged later, because a wrong argument is shown, and no key ever is.
#[derive(Debug, Clone)]
pub struct PresentedKey(Result<SubscriptionKey, MalformedKey>);

#[expect(clippy::unnecessary_wraps, reason = "the signature of a value parser")]
fn presented(text: &str) -> Result<PresentedKey, Infallible> {
    Ok(PresentedKey(SubscriptionKey::parse(text.as_bytes())))
}

/// Times the chunks of a stream.
#[must_use]
pub fn run(args: SmokeArgs) -> ExitCode {
    let mut screen = Screen::new();
    match prove(args, &mut screen).and_then(|pace| Ok(screen.verdict(&pace)?)) {
        Ok(Verdict::Streams) => ExitCode::SUCCESS,
        Ok(Verdict::Bunched) => ExitCode::FAILURE,
        Ok(Verdict::TooShort) => ExitCode::from(CANNOT_TELL),
        Err(error) => report(&error),
    }
}

fn prove(args: SmokeArgs, screen: &mut Screen) -> Result<Pace, SmokeError> {
    let SmokeArgs { url, key, deployment, ca, insecure } = args;
    let mut endpoint = Endpoint::parse(&url)?;
    // SDKs are given the URL with it.
    if let Some(without) = endpoint.without_api_path() {
        endpoint = Endpoint::parse(&without)?;
    }
    let trust = if insecure { Trust::Anyone } else { Trust::Verified(ca) };
    let subject = Subject { endpoint, key: key.0?, deployment, trust };
    if insecure {
        warn_insecure();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(smoke::prove(subject, |step| screen.step(&step)))
}

#[expect(clippy::print_stderr, reason = "where warnings of commands are shown")]
fn warn_insecure() {
    eprintln!("warning: --insecure: the certificate is not verified, and whoever answers gets the key");
}

#[expect(clippy::print_stderr, reason = "where failures of commands are shown")]
fn report(error: &SmokeError) -> ExitCode {
    match error {
        SmokeError::Io(cause) if cause.kind() == io::ErrorKind::BrokenPipe => {}
        _ => eprintln!("error: {error}"),
    }
    match error {
        SmokeError::Url(_) | SmokeError::Key(_) | SmokeError::Trust(_) => ExitCode::from(super::INVALID),
        // The answer is there, and it is no stream.
        SmokeError::NotAStream(_) => ExitCode::FAILURE,
        _ => ExitCode::from(NO_ANSWER),
    }
}

/// Where the proof is shown, in colour on a terminal.
struct Screen {
    out: io::Stdout,
    colours: bool,
}

impl Screen {
    fn new() -> Self {
        let out = io::stdout();
        // https://no-color.org
        let colours = out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { out, colours }
    }

    fn step(&mut self, step: &Step<'_>) -> io::Result<()> {
        match *step {
            Step::Plain { deployment, text, usage, headers, took } => {
                let words = first_words(text);
                writeln!(self.out, "plain     {deployment} answered after {}: {words:?}", Millis(took))?;
                self.usage(usage)?;
                self.headers(headers)
            }
            Step::Head { headers, at } => {
                writeln!(self.out, "streamed  the head came after {}", Millis(at))?;
                self.headers(headers)
            }
            Step::Chunk { text, at, gap } => {
                let (dim, plain) = self.colour(DIM);
                // The arrival, and beside it the wait for it: where streaming streams, none of these is zero for long.
                writeln!(
                    self.out,
                    "{:>12}  {dim}+{:<10}{plain}  {text:?}",
                    Millis(at).to_string(),
                    Millis(gap).to_string()
                )?;
                self.out.flush()
            }
            Step::Usage(usage) => self.usage(Some(usage)),
        }
    }

    fn usage(&mut self, usage: Option<Usage>) -> io::Result<()> {
        match usage {
            Some(Usage { prompt_tokens, completion_tokens }) => {
                writeln!(
                    self.out,
                    "          usage: {prompt_tokens} prompt and {completion_tokens} completion tokens"
                )
            }
            None => writeln!(self.out, "          no usage was reported"),
        }
    }

    fn headers(&mut self, headers: &HeaderMap) -> io::Result<()> {
        let (dim, plain) = self.colour(DIM);
        let shown = headers.iter().filter(|(name, _)| {
            name.as_str().starts_with("x-tokens-") || SHOWN_HEADERS.contains(&name.as_str())
        });
        for (name, value) in shown {
            writeln!(
                self.out,
                "          {dim}{name}: {}{plain}",
                String::from_utf8_lossy(value.as_bytes())
            )?;
        }
        Ok(())
    }

    fn verdict(&mut self, pace: &Pace) -> io::Result<Verdict> {
        let time = |at: Option<Duration>| at.map_or_else(|| "-".to_owned(), |at| Millis(at).to_string());
        writeln!(
            self.out,
            "{} chunks: the first after {}, then one every {} (median), the last after {}; \
             at most {} within a tenth of that time",
            pace.chunks(),
            time(pace.first()),
            time(pace.median_gap()),
            time(pace.last()),
            pace.fullest_tenth(),
        )?;
        let verdict = pace.verdict();
        let (colour, text) = match verdict {
            Verdict::Streams => (GREEN, "ok: streaming streams".to_owned()),
            Verdict::Bunched => (RED, BUNCHED.to_owned()),
            Verdict::TooShort => (YELLOW, too_short()),
        };
        let (colour, plain) = self.colour(colour);
        writeln!(self.out, "{colour}{text}{plain}")?;
        self.out.flush()?;
        Ok(verdict)
    }

    const fn colour(&self, code: &'static str) -> (&'static str, &'static str) {
        if self.colours { (code, PLAIN) } else { ("", "") }
    }
}

/// A time in milliseconds, for reading.
struct Millis(Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} ms", self.0.as_secs_f64() * 1000.0)
    }
}

fn first_words(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().take(SHOWN_WORDS).collect();
    words.join(" ").chars().take(80).collect()
}

fn too_short() -> String {
    format!(
        "cannot tell: the answer has fewer than {FEWEST_CHUNKS} chunks or took less than {} ms; \
         try a deployment that gives longer answers",
        SHORTEST_ANSWER.as_millis()
    )
}

const EXIT_CODES: &str = "\
Exit code: 0 the chunks came as they were made; 1 they came together, or not as a stream; 2 wrong usage; \
3 the answer was too short to tell; 4 no answer (not reachable, not trusted, refused).";
const BUNCHED: &str = "\
FAILED: half of the chunks or more came together: something between here and the model holds them back. Look for
  - a proxy, ingress or service mesh in front of the gateway that buffers responses
    (nginx: `proxy_buffering off;`, ingress-nginx: `nginx.ingress.kubernetes.io/proxy-buffering: \"off\"`)
  - one that compresses them, since text/event-stream is gathered to be compressed
  - a virus scanner, firewall or API management that inspects whole responses
  - the model's own side: a content filter that is not asynchronous releases text in blocks;
    run this command from beside the gateway, then against other deployments, to see where it begins";
/// The gateway's own, beside `x-tokens-…`.
const SHOWN_HEADERS: [&str; 4] = ["x-request-id", "x-ratelimit-remaining", "via", "content-encoding"];
const SHOWN_WORDS: usize = 8;
const CANNOT_TELL: u8 = 3;
const NO_ANSWER: u8 = 4;
const PLAIN: &str = "\x1b[0m";
const DIM: &str = "\x1b[2m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
