//! `cargo xtask test`: everything that must pass, in order, in one run.
//!
//! A failing step does not stop the ones after it, so that one run shows everything. A step that cannot run here says
//! so in one line and counts as skipped; under CI=true a skipped step fails the run.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::workspace;

mod deploy;
mod links;
mod rust;
mod sdk;
mod setup;

/// The steps, in the order in which they run.
const STEPS: &[Step] = &[
    Step { name: "setup", about: "install what later steps need and is missing", run: setup::install },
    Step { name: "format", about: "cargo fmt --check", run: rust::format },
    Step { name: "lint", about: "clippy on all targets, warnings are errors", run: rust::lint },
    Step { name: "docs", about: "rustdoc with private items, warnings are errors", run: rust::docs },
    Step { name: "links", about: "the links between the Markdown files", run: links::check },
    Step {
        name: "ebpf",
        about: "the committed kernel object is what its sources build to",
        run: rust::kernel_object,
    },
    Step { name: "unit", about: "unit tests, and the fuzzing corpora", run: rust::unit },
    Step { name: "end-to-end", about: "the gateway's wire and kernel tests", run: rust::end_to_end },
    Step { name: "sdk-python", about: "the official Python SDK as a client", run: sdk::python },
    Step { name: "sdk-node", about: "the official Node SDK as a client", run: sdk::node },
    Step {
        name: "demo",
        about: "`cargo xtask run`, its pasted lines, and what it leaves behind",
        run: sdk::demo,
    },
    Step { name: "rules", about: "Prometheus rules and metrics, by promtool", run: deploy::rules },
    Step {
        name: "manifests",
        about: "Kubernetes, container, Azure and Grafana files",
        run: deploy::manifests,
    },
    Step {
        name: "dependencies",
        about: "licences, bans and sources of every crate",
        run: deploy::dependencies,
    },
    Step { name: "benches", about: "the benchmarks compile", run: rust::benches },
];

/// What `cargo xtask test` is told on the command line.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run only this step; may be given several times. The step `setup` installs what others need: after an update, name it too
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
    /// Show the steps and stop
    #[arg(long)]
    list: bool,
}

/// One thing that must pass.
struct Step {
    name: &'static str,
    about: &'static str,
    run: fn(&Context) -> Result<Outcome>,
}

/// How a step ended, where it did not fail.
enum Outcome {
    /// It ran and passed.
    Passed,
    /// It cannot run on this machine; the reason fits on one line.
    Skipped(String),
}

/// What every step may ask.
struct Context {
    root: PathBuf,
}

impl Context {
    /// A command that runs in the workspace's root.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        command
    }

    /// Python with the packages of tests/requirements.txt, once `setup` has made it.
    fn python(&self) -> PathBuf {
        self.root.join("target/venv/bin/python")
    }

    /// Where `setup` puts tools that are not installed on the machine.
    fn tools(&self) -> PathBuf {
        self.root.join("target/tools")
    }

    /// The tool called `name`: the machine's own, or the one that `setup` fetched.
    fn tool(&self, name: &str) -> Option<PathBuf> {
        on_path(name).or_else(|| Some(self.tools().join("bin").join(name)).filter(|path| path.is_file()))
    }
}

/// What became of one step.
enum Verdict {
    Passed,
    Failed(String),
    Skipped(String),
}

struct Report {
    name: &'static str,
    verdict: Verdict,
    took: Duration,
}

/// Runs the chosen steps and prints the summary; the last line is `N passed, N failed, N skipped`.
///
/// # Errors
/// When a name after `--only` is no step.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.list {
        for Step { name, about, .. } in STEPS {
            println!("{name:<14}{about}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let steps = choose(&args.only)?;
    let context = Context { root: workspace::root()? };
    let reports: Vec<Report> = steps.iter().map(|step| report(step, &context)).collect();
    let must_run = std::env::var_os("CI").is_some_and(|value| value == "true");
    Ok(summarise(&reports, must_run))
}

fn choose(only: &[String]) -> Result<Vec<&'static Step>> {
    for name in only {
        if !STEPS.iter().any(|step| step.name == name) {
            bail!("no step is called {name:?}; `cargo xtask test --list` shows them");
        }
    }
    Ok(STEPS.iter().filter(|step| only.is_empty() || only.iter().any(|name| name == step.name)).collect())
}

fn report(step: &Step, context: &Context) -> Report {
    let Step { name, about, run } = *step;
    println!("\n==> {name}: {about}");
    let start = Instant::now();
    let verdict = match run(context) {
        Ok(Outcome::Passed) => Verdict::Passed,
        Ok(Outcome::Skipped(reason)) => {
            println!("skipped: {reason}");
            Verdict::Skipped(reason)
        }
        Err(error) => {
            println!("failed: {error:#}");
            Verdict::Failed(format!("{error:#}"))
        }
    };
    Report { name, verdict, took: start.elapsed() }
}

fn summarise(reports: &[Report], must_run: bool) -> ExitCode {
    let (mut passed, mut failed, mut skipped) = (0_u32, 0_u32, 0_u32);
    println!("\n{:<14}{:<9}{:>8}", "step", "result", "time");
    for Report { name, verdict, took } in reports {
        let (word, reason, count) = match verdict {
            Verdict::Passed => ("passed", "", &mut passed),
            Verdict::Failed(reason) => ("FAILED", reason.as_str(), &mut failed),
            Verdict::Skipped(reason) => ("skipped", reason.as_str(), &mut skipped),
        };
        *count += 1;
        println!("{}", format!("{name:<14}{word:<9}{:>7.1}s  {reason}", took.as_secs_f64()).trim_end());
    }
    if must_run && skipped > 0 {
        println!("\nCI=true: every step must run, and {skipped} did not");
    }
    println!("\n{passed} passed, {failed} failed, {skipped} skipped");
    if failed > 0 || (must_run && skipped > 0) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Runs a command to its end, its output going straight to the terminal.
pub(crate) fn pass(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let status = command.status().with_context(|| format!("cannot start {shown}"))?;
    ensure!(status.success(), "{shown} ended with {status}");
    Ok(())
}

/// A command as a person would name it: the program without its folder, and what it was told to do.
fn shown(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let name = program.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let task =
        command.get_args().map(|argument| argument.to_string_lossy()).find(|word| !word.starts_with('-'));
    task.map_or_else(|| name.clone(), |task| format!("{name} {task}"))
}

/// Whether this process may do everything on this machine: a process's folder belongs to whom it runs as.
fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// The executable that a shell would find under `name`.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    // Daemons live in sbin, which is not on every user's PATH.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_run_in_the_listed_order_however_they_are_asked_for() {
        let chosen = choose(&["rules".to_owned(), "format".to_owned()]).unwrap();
        assert_eq!(chosen.iter().map(|step| step.name).collect::<Vec<_>>(), ["format", "rules"]);
        assert_eq!(choose(&[]).unwrap().len(), STEPS.len());
    }

    #[test]
    fn an_unknown_step_is_named() {
        let error = choose(&["fromat".to_owned()]).err().unwrap();
        assert_eq!(error.to_string(), "no step is called \"fromat\"; `cargo xtask test --list` shows them");
    }

    #[test]
    fn a_skipped_step_fails_the_run_only_where_every_step_must_run() {
        let skipped = Report { name: "x", verdict: Verdict::Skipped("why".to_owned()), took: Duration::ZERO };
        let passed = Report { name: "y", verdict: Verdict::Passed, took: Duration::ZERO };
        let reports = [skipped, passed];
        assert_eq!(summarise(&reports, false), ExitCode::SUCCESS);
        assert_eq!(summarise(&reports, true), ExitCode::FAILURE);
    }

    #[test]
    fn a_command_is_named_by_its_program_and_its_task() {
        let mut command = Command::new("/usr/lib/cargo");
        assert_eq!(shown(command.args(["--quiet", "clippy", "--locked"])), "cargo clippy");
        assert_eq!(shown(&Command::new("node")), "node");
    }

    #[test]
    fn a_failed_step_fails_the_run() {
        let failed = [Report { name: "x", verdict: Verdict::Failed("why".to_owned()), took: Duration::ZERO }];
        assert_eq!(summarise(&failed, false), ExitCode::FAILURE);
    }
}
