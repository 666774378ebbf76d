//! Every way a connection ends, and the count that must follow.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use socket2::SockRef;

use crate::scene::{PATIENCE, Scene, open, until};

/// One way to end a connection that the client has open. Takes the listener, to accept from or to close.
type Ending = fn(&Scene, &TcpListener, TcpStream) -> Result<()>;

const ENDINGS: [(&str, Ending); 7] = [
    ("the client closes, then the server", client_first),
    ("the server closes, then the client", server_first),
    ("the client resets", client_resets),
    ("the server resets", server_resets),
    ("the client resets before it is accepted", reset_before_accept),
    ("the client closes before it is accepted", closed_before_accept),
    ("the client vanishes, and the server gives up", client_vanishes),
];

pub(crate) fn every_way_to_close_is_counted() -> Result<()> {
    let (scene, listener) = Scene::without_answers(open())?;
    for (what, end) in ENDINGS {
        let client = scene.connect(&scene.net.abusive, PATIENCE)?;
        until("the connection is counted", || Ok(held(&scene)? == 1)).context(what)?;
        end(&scene, &listener, client).context(what)?;
        until("it is counted no more", || Ok(held(&scene)? == 0)).context(what)?;
    }
    // The last way takes the listener along, with what it never accepted.
    let clients = [scene.connect(&scene.net.abusive, PATIENCE)?, scene.connect(&scene.net.honest, PATIENCE)?];
    until("both are counted", || Ok(scene.status()?.sources.connected == 2))?;
    drop(listener);
    until("the listener took them along", || Ok(scene.status()?.sources.connected == 0))?;
    drop(clients);
    ensure!(held(&scene)? == 0);
    Ok(())
}

fn held(scene: &Scene) -> Result<u64> {
    Ok(scene.status()?.top.iter().map(|source| source.connections).sum())
}

fn client_first(_: &Scene, listener: &TcpListener, client: TcpStream) -> Result<()> {
    let (server, _) = listener.accept()?;
    client.shutdown(Shutdown::Both)?;
    drop(client);
    drop(server);
    Ok(())
}

fn server_first(_: &Scene, listener: &TcpListener, client: TcpStream) -> Result<()> {
    drop(listener.accept()?);
    client.shutdown(Shutdown::Write)?;
    drop(client);
    Ok(())
}

fn client_resets(_: &Scene, listener: &TcpListener, client: TcpStream) -> Result<()> {
    let (server, _) = listener.accept()?;
    SockRef::from(&client).set_linger(Some(Duration::ZERO))?;
    drop(client);
    drop(server);
    Ok(())
}

fn server_resets(_: &Scene, listener: &TcpListener, client: TcpStream) -> Result<()> {
    let (server, _) = listener.accept()?;
    SockRef::from(&server).set_linger(Some(Duration::ZERO))?;
    drop(server);
    drop(client);
    Ok(())
}

fn reset_before_accept(_: &Scene, listener: &TcpListener, client: TcpStream) -> Result<()> {
    SockRef::from(&client).set_linger(Some(Duration::ZERO))?;
    drop(client);
    // Linux still hands it out, already dead.
    drop(listener.accept()?);
    Ok(())
}

fn closed_before_accept(_: &Scene, listener: &TcpListener, client: TcpStream) -> Result<()> {
    drop(client);
    drop(listener.accept()?);
    Ok(())
}

fn client_vanishes(scene: &Scene, listener: &TcpListener, client: TcpStream) -> Result<()> {
    use std::io::Write as _;
    let (mut server, _) = listener.accept()?;
    scene.net.abusive.ip("link set uplink down")?;
    SockRef::from(&server).set_tcp_user_timeout(Some(Duration::from_millis(500)))?;
    server.write_all(b"are you there?")?;
    until("the server gives up", || Ok(held(scene)? == 0))?;
    scene.net.abusive.ip("link set uplink up")?;
    drop(client);
    Ok(())
}
