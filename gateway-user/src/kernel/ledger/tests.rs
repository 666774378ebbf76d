use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1_000 * SECOND;

fn ledger(per_second: u32, burst: u32) -> Ledger {
    let [per_second, burst] = [per_second, burst].map(|number| NonZeroU32::new(number).unwrap());
    let config = KernelConfig {
        calls_per_second: per_second,
        call_burst: burst,
        connections_per_second: per_second,
        connection_burst: burst,
        ..KernelConfig::default()
    };
    Ledger::new(SourceLimits::of(&config), 1024)
}

fn peer(last: u8) -> Peer {
    Peer::Direct(Source::from_v4([192, 0, 2, last]))
}

fn tenant(name: &str) -> TenantName {
    TenantName::new(name).unwrap()
}

fn exhausted(name: &str, seconds: u64) -> Refusal {
    Refusal::Exhausted { tenant: tenant(name), retry_after: Some(Duration::from_secs(seconds)) }
}

/// Refuses at once until a penalty comes of it; after how many, and when it ends.
fn hammer(ledger: &mut Ledger, peer: Peer, refusal: &Refusal, most: u32) -> Option<(u32, u64)> {
    (1..=most).find_map(|n| ledger.refused(peer, refusal, START + u64::from(n)).map(|end| (n, end)))
}

#[test]
fn a_source_over_its_call_rate_is_under_penalty_until_its_burst_is_free() {
    let mut ledger = ledger(100, 200);
    for _ in 0..200 {
        assert_eq!(ledger.charge(peer(1), START), (SourceVerdict::Admit, None));
    }
    let end = START + 2 * SECOND;
    let refused = SourceVerdict::Refuse { retry_after: Duration::from_secs(2) };
    assert_eq!(ledger.charge(peer(1), START), (refused, Some(end)));
    assert_eq!(ledger.charge(peer(1), START + 1), (refuse(end, START + 1), None), "no new penalty");
    assert_eq!(ledger.charge(peer(2), START), (SourceVerdict::Admit, None));
    assert_eq!(ledger.charge(peer(1), end), (SourceVerdict::Admit, None));
}

#[test]
fn bad_keys_without_pause_earn_a_penalty_after_a_burst() {
    let mut ledger = ledger(100, 200);
    let (after, end) = hammer(&mut ledger, peer(1), &Refusal::UnknownKey, 1000).unwrap();
    assert_eq!(after, 202, "the first is told to wait, two hundred more are forgiven");
    assert_eq!(end, START + 202 + 10 * SECOND);
}

#[test]
fn an_exhausted_tenant_that_hammers_is_penalised_until_its_retry_after() {
    let mut ledger = ledger(100, 200);
    ledger.accepted(peer(1), &tenant("spent"));
    let (after, end) = hammer(&mut ledger, peer(1), &exhausted("spent", 37), 1000).unwrap();
    assert_eq!((after, end), (202, START + 202 + 37 * SECOND));
}

#[test]
fn workers_that_are_refused_together_and_wait_as_told_are_never_penalised() {
    let mut ledger = ledger(100, 50);
    for round in 0..100 {
        let now = START + round * 5 * SECOND;
        for _ in 0..50 {
            assert_eq!(ledger.refused(peer(1), &exhausted("busy", 5), now), None);
        }
    }
}

#[test]
fn a_neighbours_tenant_shields_the_address_from_bad_keys_and_exhausted_tenants() {
    let mut ledger = ledger(100, 20);
    ledger.accepted(peer(1), &tenant("honest"));
    assert_eq!(hammer(&mut ledger, peer(1), &Refusal::UnknownKey, 1000), None);
    assert_eq!(hammer(&mut ledger, peer(1), &exhausted("spent", 5), 1000), None);
    ledger.accepted(peer(1), &tenant("spent"));
    assert_eq!(hammer(&mut ledger, peer(1), &exhausted("spent", 5), 1000), None);
}

#[test]
fn a_neighbours_refused_calls_do_not_use_up_the_addresss_rate() {
    let mut ledger = ledger(1, 5);
    ledger.accepted(peer(1), &tenant("honest"));
    for refusal in [Refusal::UnknownKey, exhausted("spent", 5)] {
        for _ in 0..1000 {
            assert_eq!(ledger.charge(peer(1), START), (SourceVerdict::Admit, None));
            assert_eq!(ledger.refused(peer(1), &refusal, START), None);
        }
    }
    for _ in 0..1000 {
        assert_eq!(ledger.refused(peer(1), &Refusal::MalformedTls, START), None);
    }
    let admitted = (0..100).filter(|_| ledger.charge(peer(1), START).0 == SourceVerdict::Admit).count();
    assert_eq!(admitted, 5, "what was no call gives none back");
}

#[test]
fn refusals_beyond_the_rate_wait_whoever_was_served() {
    let mut ledger = ledger(10, 5);
    ledger.accepted(peer(1), &tenant("honest"));
    for _ in 0..5 {
        assert_eq!(ledger.pace(peer(1), &Refusal::UnknownKey, START), Duration::ZERO);
    }
    for turn in 1..=100 {
        let wait = ledger.pace(peer(1), &Refusal::UnknownKey, START);
        assert_eq!(wait, Duration::from_millis(100 * turn));
    }
    for _ in 0..1000 {
        assert_eq!(ledger.pace(peer(1), &Refusal::TooFast, START), LONGEST_WAIT, "and no longer");
    }
    assert_eq!(ledger.pace(peer(1), &exhausted("spent", 5), START), Duration::ZERO, "who has a key");
    assert_eq!(ledger.pace(peer(2), &Refusal::UnknownKey, START), Duration::ZERO, "another source");
    let later = START + 11 * SECOND;
    assert_eq!(ledger.pace(peer(1), &Refusal::UnknownKey, later), Duration::ZERO);
}

#[test]
fn connections_wait_for_their_turn_and_not_for_long() {
    let mut ledger = ledger(10, 5);
    let waits: Vec<_> = (0..100).filter_map(|_| ledger.connect(peer(1), START)).collect();
    let expected: Vec<_> =
        (0..15_u64).map(|number| Duration::from_millis(100 * number.saturating_sub(4))).collect();
    assert_eq!(waits, expected);
    assert_eq!(ledger.connect(peer(2), START), Some(Duration::ZERO));
    assert_eq!(ledger.connect(peer(1), START + 2 * SECOND), Some(Duration::ZERO));
}

#[test]
fn faster_limits_hold_for_the_next_connection() {
    let mut ledger = ledger(1, 100);
    while ledger.connect(peer(1), START).is_some() {}
    let fast = NonZeroU32::new(100).unwrap();
    let config =
        KernelConfig { connections_per_second: fast, connection_burst: fast, ..KernelConfig::default() };
    ledger.set_limits(SourceLimits::of(&config));
    assert_eq!(ledger.connect(peer(1), START), Some(Duration::ZERO));
    let waiting = (0..1000).filter(|_| ledger.connect(peer(1), START).is_some()).count();
    assert_eq!(waiting, 100);
}

#[test]
fn a_flood_of_frames_is_a_penalty_at_once_but_for_who_shares_the_address() {
    let mut ledger = ledger(50, 100);
    assert_eq!(ledger.refused(peer(1), &Refusal::Flood, START), Some(START + 10 * SECOND));
    ledger.accepted(peer(2), &tenant("honest"));
    for _ in 0..3 {
        assert_eq!(ledger.refused(peer(2), &Refusal::Flood, START), None);
    }
    assert_eq!(ledger.connect(peer(2), START), None, "each took a second of its connections");
    assert_eq!(ledger.connect(peer(2), START + SECOND), Some(Duration::from_millis(20)));
}

#[test]
fn a_flood_of_strangers_makes_no_served_source_forgotten() {
    let mut ledger = ledger(100, 20);
    ledger.accepted(peer(1), &tenant("honest"));
    for number in 0..100_000_u32 {
        let stranger = Peer::Direct(Source::from_v4(number.to_be_bytes()));
        assert_eq!(ledger.refused(stranger, &Refusal::MalformedTls, START), None);
    }
    assert_eq!(hammer(&mut ledger, peer(1), &Refusal::UnknownKey, 1000), None);
    assert!(ledger.strangers.len() <= 1024);
}

#[test]
fn a_release_ends_a_penalty_and_what_led_to_it() {
    let mut ledger = ledger(1, 1);
    ledger.charge(peer(1), START);
    assert!(ledger.charge(peer(1), START).1.is_some());
    assert!(ledger.release(peer(1)));
    assert!(!ledger.release(peer(1)));
    assert_eq!(ledger.charge(peer(1), START), (SourceVerdict::Admit, None));
}

#[test]
fn a_proxied_client_is_not_its_balancer() {
    let mut ledger = ledger(1, 1);
    let source = Source::from_v4([192, 0, 2, 1]);
    ledger.charge(Peer::Proxied(source), START);
    assert!(ledger.charge(Peer::Proxied(source), START).1.is_some());
    assert_eq!(ledger.charge(Peer::Direct(source), START), (SourceVerdict::Admit, None));
}

#[derive(Debug, Clone)]
enum Step {
    Charge,
    Refused(Refusal),
    Accepted(TenantName),
}

fn step() -> impl Strategy<Value = Step> {
    let name = prop_oneof![Just("a"), Just("b")].prop_map(tenant);
    prop_oneof![
        3 => Just(Step::Charge),
        3 => Just(Step::Refused(Refusal::UnknownKey)),
        2 => (name.clone(), proptest::option::of(0_u64..1_000)).prop_map(|(tenant, seconds)| {
            Step::Refused(Refusal::Exhausted { tenant, retry_after: seconds.map(Duration::from_secs) })
        }),
        1 => name.prop_map(Step::Accepted),
    ]
}

proptest! {
    #[test]
    fn a_penalty_always_ends_and_strikes_only_those_it_may(
        steps in proptest::collection::vec((step(), 0_u8..4, 0_u64..SECOND / 2), 1..400),
    ) {
        let mut ledger = ledger(5, 5);
        let mut served: HashMap<Peer, Vec<TenantName>> = HashMap::new();
        let mut now = START;
        for (step, who, pause) in steps {
            now += pause;
            let peer = peer(who);
            match step {
                Step::Charge => {
                    let (verdict, end) = ledger.charge(peer, now);
                    if let SourceVerdict::Refuse { retry_after } = verdict {
                        prop_assert!(retry_after <= LONGEST_PENALTY && !retry_after.is_zero());
                    }
                    if let Some(end) = end {
                        prop_assert_eq!(verdict, refuse(end, now), "told what is enforced");
                    }
                }
                Step::Refused(refusal) => {
                    let Some(end) = ledger.refused(peer, &refusal, now) else { continue };
                    let others = served.get(&peer).into_iter().flatten();
                    prop_assert_eq!(others.filter(|name| Some(*name) != refusal.tenant()).count(), 0);
                    prop_assert_eq!(end - now, refusal.penalty_ns());
                }
                Step::Accepted(tenant) => {
                    ledger.accepted(peer, &tenant);
                    served.entry(peer).or_default().push(tenant);
                }
            }
        }
        ledger.expire(now + nanos(LONGEST_PENALTY));
        prop_assert_eq!(ledger.penalties().count(), 0);
    }
}
