//! A TCP proxy, to cut a connection on purpose.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// They go through.
    Open,
    /// They are closed, the established ones too.
    Cut,
    /// They stay open and nothing arrives.
    Silent,
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    line: watch::Sender<Line>,
}

impl Proxy {
    /// In front of `target` (host:port).
    pub(crate) async fn start(target: &str, line: Line) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (line, state) = watch::channel(line);
        let target = target.to_owned();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connect(client, target.clone(), state.clone()));
            }
        });
        Self { address, line }
    }

    /// In front of the server that `url` names. Returns the URL by way of the proxy too.
    pub(crate) async fn before(url: &str, line: Line) -> (Self, String) {
        let mut url: reqwest::Url = url.parse().unwrap();
        let default = if url.scheme() == "redis" { 6379 } else { 5432 };
        let target = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(default));
        let proxy = Self::start(&target, line).await;
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(proxy.address.port())).unwrap();
        (proxy, url.to_string())
    }

    pub(crate) fn set(&self, line: Line) {
        self.line.send_replace(line);
    }
}

async fn connect(mut client: TcpStream, target: String, mut line: watch::Receiver<Line>) {
    if *line.borrow() == Line::Cut {
        return;
    }
    let mut server = TcpStream::connect(target).await.unwrap();
    loop {
        let state = *line.borrow_and_update();
        match state {
            Line::Cut => return,
            Line::Silent => line.changed().await.unwrap_or(()),
            Line::Open => {
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return,
                    _ = line.changed() => {}
                }
            }
        }
    }
}
