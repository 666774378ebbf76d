//! One kept-alive HTTP/1.1 connection to a backend, driven by the call that uses it.
//!
//! hyper splits a client connection into a handle that sends requests and a driver that moves the bytes, joined by
//! channels and meant for two tasks. Here both live in the task of the call: whenever the call is polled it polls the
//! driver first, so that a request or a chunk costs no wake-up of another task. Only the driver waits for the socket;
//! the other ends of hyper's channels are polled with a waker that does nothing, because they can only become ready
//! by the driver's own progress.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::coop::unconstrained;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::body::{Progress, RequestBody};

/// What carries the bytes: TLS, or plain TCP to a loopback address.
pub(crate) type Transport = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// What a connection is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// Answers in one piece, of any length: read in pieces that grow with them.
    Documents,
    /// Streams of small chunks, many at a time: each holds a small buffer for as long as it lasts.
    Streams,
}

/// How much of a stream is read at once.
const STREAM_READ: usize = 4096;

/// Why a request got no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// The connection was closed before any of the request was written; it can go over another one.
    #[error("the connection was closed before the request")]
    Unsent(Box<Request<RequestBody>>),
    /// The connection broke after the request, or a part of it, was written.
    #[error(transparent)]
    Broken(hyper::Error),
    /// The connection was closed without a response.
    #[error("the connection was closed without a response")]
    Closed,
}

/// A connection to a backend, idle or in use by one call.
pub(crate) struct Connection {
    sender: http1::SendRequest<RequestBody>,
    driver: http1::Connection<TokioIo<Transport>, RequestBody>,
    driver_ended: bool,
    /// Of the last request.
    progress: Progress,
}

impl Connection {
    /// Makes an HTTP connection of a byte stream. Nothing is sent yet.
    pub(crate) async fn new(transport: Transport, traffic: Traffic) -> Result<Box<Self>, hyper::Error> {
        let mut builder = http1::Builder::new();
        builder.read_buf_exact_size(match traffic {
            Traffic::Documents => None,
            Traffic::Streams => Some(STREAM_READ),
        });
        let (sender, driver) = builder.handshake(TokioIo::new(transport)).await?;
        Ok(Box::new(Self { sender, driver, driver_ended: false, progress: Progress::default() }))
    }

    /// Whether the connection is open and has no exchange under way. Notices a close that has reached the socket.
    pub(crate) fn is_reusable(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        !self.driver_ended && self.sender.is_ready()
    }

    /// Starts to send a request. The future is ready with the head of its response, and has to be polled for anything to
    /// happen. It does not hold the request, so that it stays small.
    pub(crate) fn send(
        &mut self,
        mut request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, SendError>> {
        request.body_mut().report_to(&self.progress);
        let response = self.sender.try_send_request(request);
        let (driver, driver_ended) = (&mut self.driver, &mut self.driver_ended);
        async move {
            // Out of budget, tokio's channel would be pending though it is ready, and wake only the waker that it is polled with.
            let mut response = pin!(unconstrained(response));
            poll_fn(move |cx| {
                *driver_ended = *driver_ended || Pin::new(&mut *driver).poll(cx).is_ready();
                match response.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(Ok(response)) => Poll::Ready(Ok(response)),
                    Poll::Ready(Err(mut error)) => Poll::Ready(Err(match error.take_message() {
                        Some(request) => SendError::Unsent(Box::new(request)),
                        None => SendError::Broken(error.into_error()),
                    })),
                    Poll::Pending if *driver_ended => Poll::Ready(Err(SendError::Closed)),
                    Poll::Pending => Poll::Pending,
                }
            })
            .await
        }
    }

    /// Whether upstream can have all of the last request: the connection has taken all of it to be written.
    pub(crate) fn has_sent_all(&self) -> bool {
        self.progress.is_complete()
    }

    /// The next frame of the body of the response that this connection is receiving.
    pub(crate) fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut noop = Context::from_waker(Waker::noop());
        // The first poll tells the driver that the body is wanted, the second takes what the driver then read.
        if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(&mut noop) {
            return Poll::Ready(frame);
        }
        self.drive(cx);
        Pin::new(body).poll_frame(&mut noop)
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        // An error of the driver is told to the request or body that it broke; here it only means the end.
        self.driver_ended = self.driver_ended || Pin::new(&mut self.driver).poll(cx).is_ready();
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("driver_ended", &self.driver_ended).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::coop::consume_budget;

    use super::*;

    /// Answers each request, however it is cut, with one chunked body.
    async fn answer_requests(listener: TcpListener) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 1024];
        while stream.read(&mut buffer).await.unwrap() > 0 {
            let response =
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
            stream.write_all(response).await.unwrap();
        }
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
    async fn a_call_that_has_spent_its_tasks_budget_is_woken_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        tokio::spawn(answer_requests(listener));
        let mut connection = Connection::new(Either::Left(stream), Traffic::Documents).await.unwrap();
        // tokio gives a task 128 units a poll.
        for spent in 0..128 {
            let exchange = on_a_budget(spent, async {
                let mut response = connection.send(Request::new(RequestBody::default())).await.unwrap();
                let mut body = Vec::new();
                while let Some(frame) = poll_fn(|cx| connection.poll_frame(response.body_mut(), cx)).await {
                    body.extend_from_slice(&frame.unwrap().into_data().unwrap());
                }
                body
            });
            // The deadline is looked at first: the wake-up that it brings must not pass for the one that is missing.
            let body = tokio::select! {
                biased;
                () = tokio::time::sleep(Duration::from_secs(5)) => panic!("never woken with {spent} units spent"),
                body = exchange => body,
            };
            assert_eq!(body, b"abc");
            assert!(connection.is_reusable());
        }
    }
}
