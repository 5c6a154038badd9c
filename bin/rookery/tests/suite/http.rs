//! Metrics and health over HTTP, asked with plain sockets.

use std::net::SocketAddr;

use crate::support::{Fake, at_tip, front};
use rookery::exit::Exit;
use rookery::front::Front;
use rookery::http;
use rookery::node::view::Progress;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn serve(node: Fake) -> (SocketAddr, Front) {
    let front = front(node, std::path::Path::new("/nonexistent"));
    let listener = http::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    http::serve(listener, front.clone());
    (address, front)
}

async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

async fn get(address: SocketAddr, path: &str) -> String {
    exchange(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
}

#[tokio::test]
async fn metrics_are_in_the_format_that_the_type_says() {
    let (address, front) = serve(Fake::new(at_tip())).await;
    front.env.metrics.header_height.set(7);
    let text = get(address, "/metrics").await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(text.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"));
    assert!(text.contains("\nrookery_header_height 7\n") && text.ends_with("# EOF\n"), "{text}");
}

#[tokio::test]
async fn health_is_plain_text_with_the_reason() {
    let (address, _front) = serve(Fake::new(at_tip())).await;
    for path in ["/livez", "/healthz"] {
        let text = get(address, path).await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\nok\n"), "{text}");
        assert!(text.contains("content-type: text/plain; charset=utf-8\r\n"), "{text}");
    }
    let text = get(address, "/readyz").await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\nready\n"), "{text}");
    let text = get(address, "/readyz?verbose").await;
    assert!(text.contains("ok   peers: 1 connected, 1 asked for\n") && text.contains("ok   store"), "{text}");
}

#[tokio::test]
async fn a_node_without_peers_lives_and_is_not_ready() {
    let (address, _front) = serve(Fake::new(Progress { peers: 0, ..at_tip() })).await;
    assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200"));
    let text = get(address, "/readyz").await;
    assert!(text.starts_with("HTTP/1.1 503"), "{text}");
    assert!(text.ends_with("\r\n\r\nFAIL peers: 0 connected, 1 asked for\nnot ready\n"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_hangs_is_not_live() {
    let (address, _front) = serve(Fake { hangs: true, ..Fake::new(at_tip()) }).await;
    for path in ["/livez", "/readyz"] {
        let text = get(address, path).await;
        assert!(text.starts_with("HTTP/1.1 503") && text.contains("did not answer"), "{text}");
    }
    // What does not need the node goes on.
    assert!(get(address, "/metrics").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn other_requests_are_refused() {
    let (address, _front) = serve(Fake::new(at_tip())).await;
    assert!(get(address, "/secret").await.starts_with("HTTP/1.1 404"));
    let post = exchange(address, "POST /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(post.starts_with("HTTP/1.1 405"), "{post}");
    assert!(exchange(address, "garbage\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(9_000));
    assert!(exchange(address, &long).await.starts_with("HTTP/1.1 431"));
    assert!(get(address, "/").await.contains("/readyz?verbose"));
}

#[tokio::test(start_paused = true)]
async fn clients_that_never_ask_make_room_for_those_that_do() {
    let (address, _front) = serve(Fake::new(at_tip())).await;
    let mut silent = Vec::new();
    for _ in 0..http::MAX_CONNECTIONS {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HT").await.unwrap();
        silent.push(stream);
    }
    assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_stop_closes_idle_connections() {
    let (address, front) = serve(Fake::new(at_tip())).await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    front.env.scope.close(std::time::Duration::from_secs(5)).await.unwrap();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_taken_port_is_explained() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let report = http::bind(taken.local_addr().unwrap()).await.unwrap_err();
    assert_eq!(report.exit, Exit::PortTaken);
    assert!(report.hint.unwrap().contains("--metrics"));
    let report = http::bind("192.0.2.1:1".parse().unwrap()).await.unwrap_err();
    assert!(report.hint.unwrap().contains("no address of this machine"));
}
