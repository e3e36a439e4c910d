//! Connections: bounded in number, in all and for each peer, and in the time they may take to ask; let go at a stop.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::http::header::{CONNECTION, EXPECT};
use axum::http::{HeaderValue, Request};
use axum::response::Response;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tower_service::Service as _;
use tracing::warn;

use super::bounds::{
    Complaints, DISCARD_PATIENCE, DISCARDED_BYTES, HEAD_BYTES, HEAD_FIELDS, HEAD_PATIENCE, SEND_PATIENCE,
};
use super::patient::Patient;
use crate::config::Tls;

/// At a stop, how long a connection that has no request under way may still send one, and an answer may take to leave.
const LAST_CALL: Duration = Duration::from_millis(500);

/// How many connections there may be at once.
#[derive(Debug, Clone)]
pub struct Connections {
    /// In all; more wait in the listener's queue.
    pub max: usize,
    /// From one address; more are closed.
    pub max_per_ip: usize,
    /// Addresses for which only `max` counts: many clients come by them.
    pub unbounded: Vec<IpNet>,
}

/// Serves `router` on `listener`, with TLS where there is a certificate, until `stopping`; then until no request is under way.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    connections: Connections,
    tls: Option<Tls>,
    mut stopping: watch::Receiver<bool>,
) {
    let tls = tls.map(|tls| TlsAcceptor::from(tls.config));
    let slots = Arc::new(Semaphore::new(connections.max));
    let peers = Arc::new(Peers::new(connections.max_per_ip, connections.unbounded));
    let under_way = Arc::new(AtomicUsize::new(0));
    let graceful = GracefulShutdown::new();
    let mut protocol = http1::Builder::new();
    protocol.timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE);
    protocol.max_header_size(HEAD_BYTES).max_headers(HEAD_FIELDS);
    let complaints = Complaints::default();
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
        let Some(place) = peers.admit(peer.ip()) else {
            if complaints.due() {
                warn!(peer = %peer.ip(), "a connection was closed: its address has MAX_CONNECTIONS_PER_IP already");
            }
            continue;
        };
        // Answers are small and shouldn't wait for more to send.
        _ = stream.set_nodelay(true);
        let (router, under_way) = (router.clone(), under_way.clone());
        let service =
            service_fn(move |request| answer(router.clone(), peer, request, UnderWay::new(&under_way)));
        let stream = Patient::new(stream, SEND_PATIENCE);
        let (protocol, watcher, tls) = (protocol.clone(), graceful.watcher(), tls.clone());
        tokio::spawn(async move {
            // An error is a client that went away, was too slow, or doesn't speak the protocol.
            match tls {
                None => _ = watcher.watch(protocol.serve_connection(TokioIo::new(stream), service)).await,
                Some(tls) => {
                    if let Ok(Ok(stream)) = timeout(HEAD_PATIENCE, tls.accept(stream)).await {
                        _ = watcher.watch(protocol.serve_connection(TokioIo::new(stream), service)).await;
                    }
                }
            }
            drop((slot, place));
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
    let must_be_asked = request.headers().contains_key(EXPECT);
    let (parts, body) = request.into_parts();
    let body = Arc::new(Mutex::new(body));
    let lent = Body::new(Lent(body.clone()));
    let mut response = router.call(Request::from_parts(parts, lent)).await;
    // What is refused before all of it was read leaves something behind, and the connection can't be used for more. Mostly that is little. A
    // client that waits for leave to send is not given it just for this.
    let used_up = if must_be_asked { lock(&body).is_end_stream() } else { discard(&body).await };
    if let (false, Ok(response)) = (used_up, &mut response) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    drop(under_way);
    response
}

/// A request's body in a handler's hands; what the handler leaves of it isn't lost.
struct Lent(Arc<Mutex<Incoming>>);

impl hyper::body::Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut *lock(&self.0)).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.0).is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.0).size_hint()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads the rest of `body`, within bounds. Whether it came to its end.
async fn discard(body: &Mutex<Incoming>) -> bool {
    let reading = async {
        let mut length = 0;
        while length <= DISCARDED_BYTES {
            let frame = std::future::poll_fn(|cx| Pin::new(&mut *lock(body)).poll_frame(cx)).await;
            match frame {
                None => return true,
                Some(Err(_)) => return false,
                Some(Ok(frame)) => length += frame.data_ref().map_or(0, Bytes::len),
            }
        }
        false
    };
    timeout(DISCARD_PATIENCE, reading).await.unwrap_or(false)
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

/// How many connections each address has.
struct Peers {
    max: usize,
    unbounded: Vec<IpNet>,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

impl Peers {
    fn new(max: usize, unbounded: Vec<IpNet>) -> Self {
        Self { max, unbounded, counts: Mutex::default() }
    }

    /// A place for one more connection from `address`, to be kept as long as that lives.
    fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        if self.unbounded.iter().any(|net| net.contains(&address)) {
            return Some(Place(None));
        }
        let peer = subscriber(address);
        let mut counts = lock(&self.counts);
        let count = counts.entry(peer).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Place(Some((self.clone(), peer))))
    }
}

/// Who has `address`. A subscriber gets a whole IPv6 /64.
fn subscriber(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// One connection's place among those of its address.
struct Place(Option<(Arc<Peers>, IpAddr)>);

impl Drop for Place {
    fn drop(&mut self) {
        let Some((peers, peer)) = &self.0 else { return };
        let mut counts = lock(&peers.counts);
        if let Some(count) = counts.get_mut(peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_as_many_places_as_it_may_and_gets_them_back() {
        let peers = Arc::new(Peers::new(2, vec!["10.0.0.0/8".parse().unwrap()]));
        let admit = |address: &str| peers.admit(address.parse().unwrap());
        let held = [admit("192.0.2.1").unwrap(), admit("::ffff:192.0.2.1").unwrap()];
        assert!(admit("192.0.2.1").is_none());
        assert!(admit("192.0.2.2").is_some());
        drop(held);
        assert!(admit("192.0.2.1").is_some());

        let held = [admit("2001:db8::1").unwrap(), admit("2001:db8::ffff:1").unwrap()];
        assert!(admit("2001:db8::2").is_none(), "one /64 is one subscriber");
        assert!(admit("2001:db8:0:1::1").is_some());
        drop(held);

        let _proxied: Vec<Place> = (0..5).map(|_| admit("10.1.2.3").unwrap()).collect();
        assert!(peers.counts.lock().unwrap().is_empty(), "what has gone leaves nothing behind");
    }
}
