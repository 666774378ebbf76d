//! `aoai-gateway tenant …`: who may call, and with which keys.

use std::io::Write;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use time::OffsetDateTime;
use toml::value::{Date, Datetime, Offset, Time};

use super::{ConfigArg, Failure, table};
use crate::config::{Config, nearest};
use crate::names::{TenantName, TierName};
use crate::secret::SubscriptionKey;
use crate::tenant::{KeySlot, Tenant, TenantState, TenantsError, TenantsFile};

/// What to do with which tenant.
#[derive(Debug, Args)]
pub struct TenantArgs {
    /// The configuration, which names the tenants file.
    #[command(flatten)]
    pub config: ConfigArg,
    /// What to do.
    #[command(subcommand)]
    pub command: TenantCommand,
}

/// What can be done with tenants.
#[derive(Debug, Subcommand)]
pub enum TenantCommand {
    /// Add a tenant and print its two keys: the only time that they can be seen
    Add {
        /// The tenant
        #[arg(value_parser = TenantName::new)]
        name: TenantName,
        /// The limits it gets: a tier of the configuration
        #[arg(long, default_value = "default", value_parser = TierName::new)]
        tier: TierName,
    },
    /// List all tenants
    List {
        /// How to write them
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Show one tenant and the hashes of its keys
    Show {
        /// The tenant
        #[arg(value_parser = TenantName::new)]
        name: TenantName,
        /// How to write it
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Replace one of a tenant's keys and print the new one; the other stays valid
    Rotate {
        /// The tenant
        #[arg(value_parser = TenantName::new)]
        name: TenantName,
        /// The key to replace
        #[arg(long, value_enum)]
        slot: KeySlot,
    },
    /// Refuse a tenant's calls until it is resumed, and end its streams
    Suspend {
        /// The tenant
        #[arg(value_parser = TenantName::new)]
        name: TenantName,
    },
    /// Let a suspended tenant call again
    Resume {
        /// The tenant
        #[arg(value_parser = TenantName::new)]
        name: TenantName,
    },
    /// Remove a tenant for good, with its keys
    Remove {
        /// The tenant
        #[arg(value_parser = TenantName::new)]
        name: TenantName,
    },
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Table,
    /// For machines
    Json,
}

pub(super) fn run(args: TenantArgs, out: &mut impl Write) -> Result<(), Failure> {
    let TenantArgs { config: ConfigArg { path }, command } = args;
    let config = Config::load(&path)?;
    let file = &config.tenants;
    match command {
        TenantCommand::Add { name, tier } => {
            if !config.tiers.contains_key(&tier) {
                let nearest = nearest(tier.as_str(), config.tiers.keys().map(TierName::as_str));
                let nearest = nearest.and_then(|name| TierName::new(name).ok());
                return Err(Failure::NoSuchTier { name: tier, config: path, nearest });
            }
            add(file, name, tier, out)
        }
        TenantCommand::List { format } => list(file, format, out),
        TenantCommand::Show { name, format } => show(file, &name, format, out),
        TenantCommand::Rotate { name, slot } => rotate(file, &name, slot, out),
        TenantCommand::Suspend { name } => {
            file.set_state(&name, TenantState::Suspended)?;
            Ok(writeln!(out, "tenant `{name}` is suspended")?)
        }
        TenantCommand::Resume { name } => {
            file.set_state(&name, TenantState::Active)?;
            Ok(writeln!(out, "tenant `{name}` is active")?)
        }
        TenantCommand::Remove { name } => {
            file.remove(&name)?;
            Ok(writeln!(out, "tenant `{name}` is removed")?)
        }
    }
}

fn add(file: &TenantsFile, name: TenantName, tier: TierName, out: &mut impl Write) -> Result<(), Failure> {
    let (primary, secondary) = (SubscriptionKey::generate()?, SubscriptionKey::generate()?);
    let tenant = Tenant {
        name,
        tier,
        state: TenantState::Active,
        primary: primary.hash(),
        secondary: secondary.hash(),
        created: Some(now()),
        rotated: None,
    };
    file.add(&tenant)?;
    writeln!(out, "tenant `{}` is added, with tier `{}`", tenant.name, tenant.tier)?;
    writeln!(out, "keep its keys now: only their hashes are stored, and either works")?;
    writeln!(out, "primary: {}", primary.reveal())?;
    Ok(writeln!(out, "secondary: {}", secondary.reveal())?)
}

fn rotate(file: &TenantsFile, name: &TenantName, slot: KeySlot, out: &mut impl Write) -> Result<(), Failure> {
    let key = SubscriptionKey::generate()?;
    file.rotate(name, slot, key.hash(), now())?;
    writeln!(out, "tenant `{name}` has a new {slot} key; the old one is refused from now on")?;
    writeln!(out, "keep it now: only its hash is stored")?;
    Ok(writeln!(out, "{slot}: {}", key.reveal())?)
}

fn list(file: &TenantsFile, format: Format, out: &mut impl Write) -> Result<(), Failure> {
    let mut tenants = file.read().map_err(TenantsError::from)?;
    tenants.sort_by(|a, b| a.name.cmp(&b.name));
    match format {
        Format::Table => {
            let rows: Vec<_> = tenants
                .iter()
                .map(|tenant| {
                    let Tenant { name, tier, state, created, rotated, primary: _, secondary: _ } = tenant;
                    [name.to_string(), tier.to_string(), state.to_string(), shown(*created), shown(*rotated)]
                })
                .collect();
            Ok(table::write(out, ["NAME", "TIER", "STATE", "CREATED", "ROTATED"], &rows)?)
        }
        Format::Json => {
            let all: Vec<_> = tenants.iter().map(as_json).collect();
            Ok(writeln!(out, "{:#}", json!(all))?)
        }
    }
}

fn show(file: &TenantsFile, name: &TenantName, format: Format, out: &mut impl Write) -> Result<(), Failure> {
    let tenant = file.find(name)?;
    match format {
        Format::Table => {
            let Tenant { name, tier, state, primary, secondary, created, rotated } = tenant;
            for (key, value) in [
                ("name", name.to_string()),
                ("tier", tier.to_string()),
                ("state", state.to_string()),
                ("created", shown(created)),
                ("rotated", shown(rotated)),
                ("primary", primary.to_string()),
                ("secondary", secondary.to_string()),
            ] {
                writeln!(out, "{key:10} {value}")?;
            }
            Ok(())
        }
        Format::Json => Ok(writeln!(out, "{:#}", as_json(&tenant))?),
    }
}

fn as_json(tenant: &Tenant) -> serde_json::Value {
    let Tenant { name, tier, state, primary, secondary, created, rotated } = tenant;
    json!({
        "name": name.as_str(),
        "tier": tier.as_str(),
        "state": state.as_str(),
        "created": created.map(|moment| moment.to_string()),
        "rotated": rotated.map(|moment| moment.to_string()),
        "primary": primary.to_string(),
        "secondary": secondary.to_string(),
    })
}

fn shown(moment: Option<Datetime>) -> String {
    moment.map_or_else(|| "-".to_owned(), |moment| moment.to_string())
}

/// The present second, in UTC.
fn now() -> Datetime {
    let now = OffsetDateTime::now_utc();
    Datetime {
        date: Some(Date {
            year: u16::try_from(now.year()).unwrap_or_default(),
            month: now.month().into(),
            day: now.day(),
        }),
        time: Some(Time {
            hour: now.hour(),
            minute: now.minute(),
            second: Some(now.second()),
            nanosecond: None,
        }),
        offset: Some(Offset::Z),
    }
}
