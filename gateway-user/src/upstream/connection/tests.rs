use std::time::Duration;

use http::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::coop::consume_budget;

use super::*;

/// Both ends of a connection.
async fn connect() -> (Connection, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    (Connection::new(Either::Left(near)), far)
}

fn request(body: &[&'static [u8]]) -> Outgoing {
    Request::post("/x").body(body.iter().map(|part| Bytes::from_static(part)).collect()).unwrap()
}

async fn body(connection: &mut Connection) -> Result<Vec<u8>, ReceiveError> {
    let mut body = Vec::new();
    while let Some(bytes) = poll_fn(|cx| connection.poll_body(cx)).await {
        body.extend_from_slice(&bytes?);
    }
    Ok(body)
}

/// Reads a request to its end, which is the last of its body.
async fn read_request(far: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut read = Vec::new();
    while !read.ends_with(end) {
        far.read_buf(&mut read).await.unwrap();
    }
    read
}

const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";

#[tokio::test]
async fn exchanges_follow_one_another() {
    let (mut connection, mut far) = connect().await;
    for _ in 0..3 {
        let request = request(&[b"one ", b"", b"two"]);
        let (response, read) = tokio::join!(connection.send(&request), async {
            let read = read_request(&mut far, b"two").await;
            far.write_all(CHUNKED).await.unwrap();
            read
        });
        assert_eq!(read, b"POST /x HTTP/1.1\r\ncontent-length: 7\r\n\r\none two");
        assert_eq!(response.unwrap().status(), StatusCode::OK);
        assert!(!connection.is_reusable(), "a response is under way");
        assert_eq!(body(&mut connection).await.unwrap(), b"abc");
        assert!(connection.is_reusable());
    }
}

#[tokio::test]
async fn a_request_that_waits_for_the_socket_is_written_to_its_end() {
    let (mut connection, mut far) = connect().await;
    let whole: &'static [u8] = vec![b'x'; 8 * 1024 * 1024].leak();
    let parts: Vec<_> = whole.chunks(100_000).collect();
    let request = request(&parts);
    let (response, length) = tokio::join!(connection.send(&request), async {
        let mut read = vec![0; 64 * 1024];
        let (mut length, expected) =
            (0, whole.len() + b"POST /x HTTP/1.1\r\ncontent-length: 8388608\r\n\r\n".len());
        while length < expected {
            length += far.read(&mut read).await.unwrap();
        }
        far.write_all(CHUNKED).await.unwrap();
        length - expected
    });
    assert!(response.is_ok() && length == 0);
    assert!(connection.has_sent_all());
}

#[tokio::test]
async fn a_response_may_come_before_the_end_of_the_request() {
    let (mut connection, mut far) = connect().await;
    far.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno").await.unwrap();
    let whole: &'static [u8] = vec![b'x'; 32 * 1024 * 1024].leak();
    let response = connection.send(&request(&[whole])).await.unwrap();
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(body(&mut connection).await.unwrap(), b"no");
    assert!(!connection.has_sent_all() && !connection.is_reusable());
}

#[tokio::test]
async fn a_connection_that_was_closed_has_sent_nothing() {
    let (mut connection, far) = connect().await;
    assert!(connection.is_reusable());
    drop(far);
    // Until the close has come through.
    while connection.is_reusable() {
        tokio::task::yield_now().await;
    }
    let (mut connection, mut far) = connect().await;
    far.write_all(b"HTTP/1.1 408 Timeout\r\n\r\n").await.unwrap();
    while connection.is_reusable() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_breaks_off_is_not_taken_for_whole() {
    for (response, error) in [
        (&b""[..], "closed before"),
        (b"HTTP/1.1 200 OK\r\n", "closed before"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", "its length twice"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab", "closed before"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n", "closed before"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "the size of a chunk"),
    ] {
        let (mut connection, mut far) = connect().await;
        let request = request(&[b"end"]);
        let (sent, ()) = tokio::join!(connection.send(&request), async {
            read_request(&mut far, b"end").await;
            far.write_all(response).await.unwrap();
            drop(far);
        });
        let told = match sent {
            Ok(_) => body(&mut connection).await.unwrap_err().to_string(),
            Err(SendError::Broken(error)) => error.to_string(),
            Err(SendError::Unsent(error)) => panic!("it was sent: {error}"),
        };
        assert!(told.contains(error), "{told}");
        assert!(!connection.is_reusable());
    }
    let (mut connection, mut far) = connect().await;
    let request = request(&[]);
    let (sent, ()) = tokio::join!(connection.send(&request), async {
        read_request(&mut far, b"\r\n\r\n").await;
        far.write_all(b"HTTP/1.1 200 OK\r\n\r\nuntil the end").await.unwrap();
        drop(far);
    });
    assert!(sent.is_ok());
    assert_eq!(body(&mut connection).await.unwrap(), b"until the end");
    assert!(!connection.is_reusable());
}

/// Polls a future with only what is left of the task's budget when so much of it is spent beforehand.
async fn on_a_budget<F: Future>(spent: usize, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| {
        for _ in 0..spent {
            if pin!(consume_budget()).poll(cx).is_pending() {
                break;
            }
        }
        future.as_mut().poll(cx)
    })
    .await
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the far end of a test")]
async fn a_call_that_has_spent_its_tasks_budget_is_woken_again() {
    let (mut connection, mut far) = connect().await;
    tokio::spawn(async move {
        while !read_request(&mut far, b"end").await.is_empty() {
            far.write_all(CHUNKED).await.unwrap();
        }
    });
    // tokio gives a task 128 units a poll.
    for spent in 0..128 {
        let request = request(&[b"end"]);
        let exchange = on_a_budget(spent, async {
            connection.send(&request).await.unwrap();
            body(&mut connection).await.unwrap()
        });
        // The deadline is looked at first: the wake-up that it brings must not pass for the one that is missing.
        let body = tokio::select! {
            biased;
            () = tokio::time::sleep(Duration::from_secs(5)) => panic!("never woken with {spent} units spent"),
            body = exchange => body,
        };
        assert_eq!(body, b"abc");
        assert!(on_a_budget(128, async { connection.is_reusable() }).await);
    }
}
