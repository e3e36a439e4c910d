//! Connections: bounded in number and in the time they may take to ask, and let go at a stop.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;
use tower_service::Service as _;
use tracing::warn;

/// Connections at once; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 10_000;
/// How long a connection may take to send a request's head, the first or the next: one that is silent for longer is closed.
const HEAD_PATIENCE: Duration = Duration::from_secs(15);
/// At a stop, how long a connection that has no request under way may still send one, and an answer may take to leave.
const LAST_CALL: Duration = Duration::from_millis(500);

/// Serves `router` on `listener` until `stopping`, then until no request is under way.
pub async fn serve(listener: TcpListener, router: Router, mut stopping: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let under_way = Arc::new(AtomicUsize::new(0));
    let graceful = GracefulShutdown::new();
    let mut protocol = http1::Builder::new();
    protocol.timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE);
    loop {
        let accepted = async {
            // Never closed, so this fails never.
            let slot = slots.clone().acquire_owned().await.ok();
            (slot, accept(&listener).await)
        };
        let (slot, (stream, peer)) = tokio::select! {
            accepted = accepted => accepted,
            _ = stopping.wait_for(|stop| *stop) => break,
        };
        // Answers are small and shouldn't wait for more to send.
        _ = stream.set_nodelay(true);
        let (router, under_way) = (router.clone(), under_way.clone());
        let service =
            service_fn(move |request| answer(router.clone(), peer, request, UnderWay::new(&under_way)));
        let connection = graceful.watch(protocol.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            // An error is a client that went away, or was too slow.
            _ = connection.await;
            drop(slot);
        });
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = idle(&under_way) => {}
    }
}

/// The next connection. Errors are the system's, out of files for one: they pass.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                warn!("a connection can't be accepted: {error}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(
    mut router: Router,
    peer: SocketAddr,
    mut request: Request<Incoming>,
    under_way: UnderWay,
) -> Result<Response, Infallible> {
    request.extensions_mut().insert(ConnectInfo(peer));
    let response = router.call(request.map(Body::new)).await;
    drop(under_way);
    response
}

/// Returns once no request has been under way for as long as [`LAST_CALL`].
async fn idle(under_way: &AtomicUsize) {
    loop {
        sleep(LAST_CALL).await;
        if under_way.load(Ordering::Relaxed) == 0 {
            sleep(LAST_CALL).await;
            if under_way.load(Ordering::Relaxed) == 0 {
                return;
            }
        }
    }
}

/// Counts a request for as long as it lives, also one whose client goes away.
struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
