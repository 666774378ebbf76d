//! The kernel programs on the real kernel: packet by packet, and between network namespaces. Beside them, what else takes
//! a namespace.
//!
//! All of it takes root. Without, each test is reported as ignored; with `CI=true` it fails instead.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test binary with a `main` of its own")]

#[path = "kernel/flood.rs"]
mod flood;
#[path = "kernel/gateway.rs"]
mod gateway;
#[path = "kernel/held.rs"]
mod held;
#[path = "kernel/identity.rs"]
mod identity;
#[path = "kernel/lifetime.rs"]
mod lifetime;
#[path = "kernel/old.rs"]
mod old;
#[path = "kernel/scene.rs"]
mod scene;
#[path = "kernel/stage.rs"]
mod stage;
#[path = "kernel/verdicts.rs"]
mod verdicts;

use std::process::ExitCode;

use anyhow::{Result, anyhow};
use libtest_mimic::{Arguments, Failed, Trial};

struct Test(&'static str, fn() -> Result<()>);

/// Tests, each with its own name.
macro_rules! tests {
    ($($module:ident::$name:ident),* $(,)?) => { [$(Test(stringify!($name), $module::$name)),*] };
}

fn main() -> ExitCode {
    let tests = tests![
        verdicts::every_packet_shape_gets_its_verdict,
        verdicts::a_penalty_drops_every_packet_that_can_be_read,
        verdicts::a_penalty_ends_by_itself,
        verdicts::a_penalty_takes_nothing_from_a_rate,
        verdicts::a_burst_of_connections_passes_and_no_more,
        verdicts::an_exempt_network_is_never_dropped,
        verdicts::random_bytes_are_dropped_only_for_cause,
        verdicts::made_up_sources_evict_nobody_known,
        verdicts::drops_are_sampled_off_the_fast_path,
        flood::a_connection_flood_is_shed_and_its_neighbour_served,
        flood::hoarded_connections_are_bounded,
        flood::a_penalised_source_is_silent_until_its_end,
        flood::a_released_source_is_served_at_once,
        flood::limits_change_without_detaching,
        flood::ipv6_is_shed_by_its_64,
        held::every_way_to_close_is_counted,
        lifetime::a_killed_process_leaves_nothing_attached,
        lifetime::what_is_in_the_way_is_said,
        old::an_old_kernel_is_said_where_shedding_is_required,
        old::on_an_old_kernel_calls_are_served_without_shedding,
        lifetime::a_renamed_interface_stays_protected,
        lifetime::a_lost_interface_is_attached_when_it_is_back,
        lifetime::maps_work_without_privileges,
        gateway::a_flood_of_calls_is_shed_until_the_time_told,
        gateway::over_ipv6_a_64_is_one_source,
        gateway::a_flood_of_bad_keys_is_shed_and_let_in_again,
        gateway::an_exhausted_tenant_that_hammers_is_shed_until_it_may_come_back,
        gateway::behind_one_address_the_honest_are_served_whatever_the_others_do,
        gateway::broken_handshakes_and_requests_count,
        gateway::a_flood_of_connections_reaches_no_worker,
        gateway::whoever_hoards_connections_gets_no_more,
        gateway::clients_of_a_balancer_are_charged_by_the_address_it_names,
        gateway::limits_reload_without_privileges,
        gateway::a_gateway_killed_under_flood_leaves_nothing,
        lifetime::loopback_is_attached_in_the_stack,
        identity::a_virtual_machines_identity_is_asked_for_where_instance_metadata_is,
    ];
    let missing = missing_privileges();
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    if let Some(missing) = &missing {
        eprintln!("kernel tests need root: {missing}{}", if in_ci { "" } else { "; they are ignored" });
    }
    let trials = tests
        .into_iter()
        .map(|Test(name, test)| {
            let missing = missing.clone();
            let ignored = missing.is_some() && !in_ci;
            let run = move || match missing {
                Some(missing) => Err(anyhow!("needs root: {missing}")),
                None => test(),
            };
            Trial::test(name, move || run().map_err(|error| Failed::from(format!("{error:#}"))))
                .with_ignored_flag(ignored)
        })
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn missing_privileges() -> Option<String> {
    use caps::Capability::{CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN};
    let effective = caps::read(None, caps::CapSet::Effective).ok()?;
    let missing: Vec<String> = [CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN]
        .iter()
        .filter(|capability| !effective.contains(capability))
        .map(ToString::to_string)
        .collect();
    (!missing.is_empty()).then(|| missing.join(", "))
}
