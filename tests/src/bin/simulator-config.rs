//! Prints a gateway's configuration that has the simulator as its backend: for the demo and the SDK tests, which then
//! have the same one as the end-to-end tests.

use clap::Parser;
use gateway_tests::harness::Config;

/// Prints a configuration for a gateway in front of the simulator.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where the simulator says that it listens.
    endpoint: String,
    /// A piece of configuration to lay over it: tables merge, everything else is replaced.
    #[arg(long, value_name = "TOML")]
    with: Vec<String>,
}

fn main() -> anyhow::Result<()> {
    let Arguments { endpoint, with } = Arguments::parse();
    let base = Config::for_azure(&endpoint)?;
    let config = with.iter().try_fold(base, |config, piece| config.with(piece))?;
    #[expect(clippy::print_stdout, reason = "what it is for")]
    {
        print!("{}", config.text());
    }
    Ok(())
}
