//! What it costs a call to be charged to its source and noted as served, without the kernel part: with one source, with one
//! that every core hammers, and with as many as are remembered, at random.

#![expect(clippy::unwrap_used, reason = "what cannot be set up cannot be measured")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use gateway_user::kernel::{Caller, KernelConfig, Mode, Shedder};
use gateway_user::names::TenantName;

/// Half of what is remembered, so that none is forgotten.
const SOURCES: u32 = 1 << 15;

/// A source table with limits that nobody reaches.
fn shedder() -> Shedder {
    let config = KernelConfig {
        mode: Mode::Off,
        calls_per_second: NonZeroU32::MAX,
        call_burst: NonZeroU32::MAX,
        ..KernelConfig::default()
    };
    Shedder::attach(config, SocketAddr::from((Ipv4Addr::LOCALHOST, 8443))).unwrap()
}

fn caller(number: u32) -> Caller {
    Caller::Direct(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 | number)))
}

/// What every call of a tenant does.
fn call(shedder: &Shedder, caller: Caller, tenant: &TenantName, now: Instant) {
    black_box(shedder.charge_call(caller, now));
    shedder.accepted(caller, tenant);
}

fn one_source(criterion: &mut Criterion) {
    let (shedder, tenant) = (shedder(), TenantName::new("acme").unwrap());
    let now = Instant::now();
    criterion.bench_function("one_source", |bencher| {
        bencher.iter(|| call(&shedder, caller(1), &tenant, now));
    });
}

fn many_sources(criterion: &mut Criterion) {
    let (shedder, tenant) = (shedder(), TenantName::new("acme").unwrap());
    let now = Instant::now();
    (0..SOURCES).for_each(|number| call(&shedder, caller(number), &tenant, now));
    let mut random = 1_u32;
    criterion.bench_function("random_source", |bencher| {
        bencher.iter(|| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            call(&shedder, caller((random >> 8) % SOURCES), &tenant, now);
        });
    });
}

fn hammered(criterion: &mut Criterion) {
    let (shedder, tenant) = (Arc::new(shedder()), TenantName::new("acme").unwrap());
    let cores = thread::available_parallelism().map_or(1, usize::from);
    criterion.bench_function("one_source_every_core", |bencher| {
        bencher.iter_custom(|count| {
            let now = Instant::now();
            let took: Duration = thread::scope(|scope| {
                let callers: Vec<_> = (0..cores)
                    .map(|_| {
                        scope.spawn(|| {
                            let started = Instant::now();
                            (0..count).for_each(|_| call(&shedder, caller(1), &tenant, now));
                            started.elapsed()
                        })
                    })
                    .collect();
                callers.into_iter().filter_map(|caller| caller.join().ok()).sum()
            });
            took / u32::try_from(cores).unwrap_or(1)
        });
    });
}

criterion_group!(benches, one_source, many_sources, hammered);
criterion_main!(benches);
