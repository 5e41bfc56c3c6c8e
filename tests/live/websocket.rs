//! A WebSocket lives on through switches, on the slot it began on, until that slot is to be filled anew.

use std::time::Duration;

use kit::{Client, Load, LoadPlan, Site};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixListener};

const LONGEST: Duration = Duration::from_secs(20);

/// A WebSocket is taken: with the key of RFC 6455, section 1.3, and its answer, which HAProxy looks for.
const TAKEN: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// An application that takes every WebSocket and sends back what comes, whatever the frames say.
fn echo(site: &Site) {
    let listener = UnixListener::bind(site.blue.application()).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    asked.push(stream.read_u8().await?);
                }
                stream.write_all(TAKEN).await?;
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
}

async fn open(site: &Site) -> TcpStream {
    let mut stream = TcpStream::connect(site.frontend()).await.unwrap();
    let ask = "GET /socket HTTP/1.1\r\nHost: www.example.org\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
               Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(in_time(stream.read_u8()).await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    stream
}

async fn in_time<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONGEST, wait).await.expect("an answer in time")
}

async fn says(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).await.unwrap();
    let mut back = vec![0; text.len()];
    in_time(stream.read_exact(&mut back)).await.unwrap();
    assert_eq!(back, text);
}

/// What the step `drain` of the last release said.
async fn drained(client: &Client) -> String {
    let release = client.clone().status().await.unwrap().release.unwrap();
    release.orders.iter().find(|order| order.step == "drain").unwrap().detail.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_lives_until_its_slot_is_filled_anew() {
    let site = Site::builder().drain_end("cut").start().await.unwrap();
    echo(&site);
    site.released("v1").await.unwrap();
    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();
    let mut socket = open(&site).await;
    says(&mut socket, b"before").await;
    site.released("v2").await.unwrap();
    says(&mut socket, b"after the switch").await;
    assert!(site.visit().await.unwrap().contains("v2"));

    // Its slot gets new files: it has its time, and is then cut, which is said.
    site.released("v3").await.unwrap();
    let detail = drained(&site.client().unwrap()).await;
    assert!(detail.contains("1 request on `be_blue` cut"), "{detail}");
    assert_eq!(in_time(socket.read(&mut [0; 16])).await.unwrap_or(0), 0, "it is cut");
    assert_eq!(load.stop().unwrap().failures(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_that_is_left_lives_through_the_release_of_its_slot() {
    let site = Site::builder().drain_end("leave").start().await.unwrap();
    echo(&site);
    site.released("v1").await.unwrap();
    let mut socket = open(&site).await;
    site.released("v2").await.unwrap();
    site.released("v3").await.unwrap();
    let detail = drained(&site.client().unwrap()).await;
    assert!(detail.contains("1 request left running on `be_blue`"), "{detail}");
    says(&mut socket, b"still here").await;
}
