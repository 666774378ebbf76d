//! One client misbehaves; the other must not notice.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use gateway_tests::netns::{ABUSIVE_V4, HONEST_V4, Namespace, SERVER_V6, UPLINK};
use gateway_user::kernel::{Caller, Refusal, SourceVerdict};
use gateway_user::names::TenantName;
use socket2::{Domain, Socket, Type};

use crate::scene::{IMPATIENCE, PATIENCE, Scene, ask, number, open, pause, until};

fn abusive() -> Caller {
    Caller::Direct(IpAddr::V4(Ipv4Addr::from(ABUSIVE_V4)))
}

/// Starts many connections at once; those that came to be.
pub(crate) fn stampede(from: &Namespace, to: SocketAddr, count: usize) -> Result<Vec<Socket>> {
    from.run(|| {
        let mut sockets = Vec::new();
        for _ in 0..count {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            match socket.connect(&to.into()) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32) => {}
                Err(error) => bail!(error),
            }
            sockets.push(socket);
        }
        pause(IMPATIENCE);
        Ok(sockets.into_iter().filter(|socket| socket.peer_addr().is_ok()).collect())
    })
}

pub(crate) fn a_connection_flood_is_shed_and_its_neighbour_served() -> Result<()> {
    let mut config = open();
    config.connections_per_second = number(5);
    config.connection_burst = number(20);
    let scene = Scene::new(config)?;
    let started = Instant::now();
    let connected = stampede(&scene.net.abusive, scene.address(), 500)?.len() as u64;
    let more = started.elapsed().as_secs() * 5 + 5;
    ensure!((20..=20 + more).contains(&connected), "{connected} of 500 connected");
    for _ in 0..20 {
        scene.call(&scene.net.honest)?;
    }
    let status = scene.status()?;
    ensure!(status.packets["dropped_connection_rate"] >= 500 - connected, "{:?}", status.packets);
    ensure!(status.packets["opened"] >= connected + 20, "{:?}", status.packets);
    let interfaces = status.attached.as_ref().context("attached")?.interfaces.clone();
    ensure!(
        interfaces.len() == 1 && interfaces[0].name == UPLINK && interfaces[0].mode == "native",
        "{interfaces:?}"
    );
    Ok(())
}

pub(crate) fn hoarded_connections_are_bounded() -> Result<()> {
    let mut config = open();
    config.concurrent_connections = number(10);
    let scene = Scene::new(config)?;
    let mut hoard: Vec<TcpStream> = Vec::new();
    for _ in 0..15 {
        hoard.extend(scene.connect(&scene.net.abusive, IMPATIENCE).ok());
    }
    // One handshake may still be under way when the next begins.
    ensure!((10..=11).contains(&hoard.len()), "{} connections", hoard.len());
    let top = &scene.status()?.top;
    ensure!(top.iter().any(|source| source.source == "10.9.0.2" && source.connections >= 10), "{top:?}");
    ensure!(scene.dropped("dropped_concurrent_connections")? >= 4);
    for _ in 0..20 {
        scene.call(&scene.net.honest)?;
    }
    for mut stream in hoard.drain(..) {
        ask(&mut stream, PATIENCE).context("what is open goes on")?;
    }
    until("the hoard is let go", || Ok(scene.status()?.sources.connected == 0))?;
    scene.call(&scene.net.abusive)
}

pub(crate) fn a_penalised_source_is_silent_until_its_end() -> Result<()> {
    let mut config = open();
    config.calls_per_second = number(10);
    config.call_burst = number(100);
    let scene = Scene::new(config)?;
    let mut before = scene.connect(&scene.net.abusive, PATIENCE)?;
    ask(&mut before, PATIENCE)?;
    let now = Instant::now();
    let retry_after = (0..200)
        .find_map(|_| match scene.shedder.charge_call(abusive(), now) {
            SourceVerdict::Admit => None,
            SourceVerdict::Refuse { retry_after } => Some(retry_after),
        })
        .context("never refused")?;
    ensure!(retry_after == Duration::from_secs(10), "{retry_after:?}");
    ensure!(ask(&mut before, IMPATIENCE).is_err(), "an open connection is silent too");
    ensure!(scene.connect(&scene.net.abusive, IMPATIENCE).is_err());
    scene.call(&scene.net.honest)?;
    ensure!(scene.status()?.sources.penalised == 1);
    ensure!(scene.dropped("dropped_penalty")? > 0);
    // Whoever comes back when told is let in at once, by its first packet.
    pause(retry_after.saturating_sub(now.elapsed()));
    let dropped = scene.dropped("dropped_penalty")?;
    scene.connect(&scene.net.abusive, PATIENCE).context("back as told")?;
    ensure!(scene.dropped("dropped_penalty")? == dropped, "a packet was dropped after the penalty");
    scene.maintain()?;
    ensure!(scene.status()?.sources.penalised == 0);
    Ok(())
}

pub(crate) fn a_released_source_is_served_at_once() -> Result<()> {
    let mut config = open();
    config.call_burst = number(50);
    let scene = Scene::new(config)?;
    let honest = Caller::Direct(IpAddr::V4(Ipv4Addr::from(HONEST_V4)));
    let tenant = TenantName::new("honest").context("a name")?;
    scene.shedder.accepted(honest, &tenant);
    let now = Instant::now();
    for _ in 0..200 {
        scene.shedder.refused(abusive(), &Refusal::UnknownKey, now);
        scene.shedder.refused(honest, &Refusal::UnknownKey, now);
    }
    ensure!(scene.connect(&scene.net.abusive, IMPATIENCE).is_err());
    scene.call(&scene.net.honest).context("where a tenant was served, bad keys are no reason")?;
    ensure!(scene.shedder.release(IpAddr::V4(Ipv4Addr::from(ABUSIVE_V4)))?);
    scene.call(&scene.net.abusive)
}

pub(crate) fn limits_change_without_detaching() -> Result<()> {
    let scene = Scene::new(open())?;
    let attached = scene.status()?.attached;
    let mut kept = scene.connect(&scene.net.abusive, PATIENCE)?;
    let mut strict = open();
    strict.connections_per_second = number(1);
    strict.connection_burst = number(1);
    scene.shedder.reconfigure(strict.clone())?;
    let started = Instant::now();
    let connected = stampede(&scene.net.abusive, scene.address(), 50)?.len() as u64;
    ensure!(connected <= 3 + started.elapsed().as_secs(), "{connected} connected");
    ask(&mut kept, PATIENCE)?;
    strict.exempt = vec!["10.9.0.0/24".parse()?];
    scene.shedder.reconfigure(strict)?;
    let dropped = scene.dropped("dropped_connection_rate")?;
    for _ in 0..50 {
        scene.connect(&scene.net.abusive, PATIENCE)?;
    }
    ensure!(scene.dropped("dropped_connection_rate")? == dropped, "an exempt source was held up");
    ensure!(scene.status()?.attached == attached && scene.dropped("exempt")? > 0);
    Ok(())
}

pub(crate) fn ipv6_is_shed_by_its_64() -> Result<()> {
    let mut config = open();
    config.calls_per_second = number(1);
    config.call_burst = number(10);
    let scene = Scene::new(config)?;
    let server = SocketAddr::new(SERVER_V6.parse()?, scene.port);
    let connect = |patience| scene.net.abusive.run(|| Ok(TcpStream::connect_timeout(&server, patience)?));
    ask(&mut connect(PATIENCE)?, PATIENCE)?;
    let neighbour: IpAddr = "fd00:9:0:2:ffff::1".parse()?;
    let now = Instant::now();
    while scene.shedder.charge_call(Caller::Direct(neighbour), now) == SourceVerdict::Admit {}
    ensure!(connect(IMPATIENCE).is_err(), "another address of the same /64");
    scene.net.honest.run(|| ask(&mut TcpStream::connect_timeout(&server, PATIENCE)?, PATIENCE))?;
    scene.call(&scene.net.abusive).context("its IPv4 address is another source")
}
