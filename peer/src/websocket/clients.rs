//! `bench-peer hold`: sessions, each from a source address of its own and with its own cookies, that come back whenever
//! they lose their connection. A line on standard input is a command, and is answered by a line of JSON:
//!
//! * `status`: how many sessions are connected, to which server, and how many connections since the last `forget`
//!   found their session's state, at the server that served it last, or did not;
//! * `forget`: those two counts begin at 0 again;
//! * `blip`: every session loses its connection at once, as when a radio link breaks, and comes back;
//! * `echo RATE SECONDS`: messages at that rate, on the sessions in turn; microseconds from the intended time to the
//!   echo;
//! * `talk COUNT`: so many messages, as many on each session, each as soon as the one before it is back; microseconds of
//!   those that came back.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::cookies::Cookies;

/// The wait before the next try grows from here ...
const FIRST_WAIT: Duration = Duration::from_millis(20);
/// ... to here.
const LONGEST_WAIT: Duration = Duration::from_millis(320);
/// A handshake without an answer after this time has failed.
const PATIENCE: Duration = Duration::from_secs(1);
/// An echo that takes longer counts as this.
const LONGEST_ECHO: Duration = Duration::from_secs(5);

/// Bytes of a message.
const MESSAGE: usize = 1024;

/// Arguments of `bench-peer hold`.
#[derive(clap::Args)]
pub struct Args {
    /// The service.
    target: SocketAddr,
    /// Number of sessions.
    #[arg(long, default_value_t = 1)]
    sessions: u32,
    /// Source address of the first session; the next have the next.
    #[arg(long)]
    first: Ipv4Addr,
    /// All sessions come from the first address.
    #[arg(long)]
    one_address: bool,
    /// Number of the first session; the next have the next.
    #[arg(long, default_value_t = 0)]
    from: u32,
}

/// What a session is told.
enum Order {
    /// Lose the connection.
    Blip,
    /// Send a message and report when its echo came.
    Echo(oneshot::Sender<()>),
}

/// What all sessions share.
#[derive(Debug, Default, Serialize)]
struct Status {
    connected: u32,
    per_backend: BTreeMap<String, u32>,
    found: u64,
    fresh: u64,
    failures: u64,
}

type Board = Rc<RefCell<Status>>;

pub async fn run(args: &Args) -> Result<()> {
    LocalSet::new().run_until(hold(args)).await
}

async fn hold(args: &Args) -> Result<()> {
    let board = Board::default();
    let mut sessions = Vec::new();
    for number in 0..args.sessions {
        let step = if args.one_address { 0 } else { number };
        let source = Ipv4Addr::from_bits(args.first.to_bits() + step);
        let (orders, inbox) = mpsc::channel(1024);
        let session = Session {
            number: args.from + number,
            source: SocketAddr::from((source, 0)),
            target: args.target,
            board: Rc::clone(&board),
            inbox,
            last: None,
            cookies: Cookies::default(),
        };
        tokio::task::spawn_local(session.live());
        sessions.push(orders);
    }
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["status"] => {}
            ["forget"] => {
                let mut status = board.borrow_mut();
                (status.found, status.fresh, status.failures) = (0, 0, 0);
            }
            ["blip"] => {
                for session in &sessions {
                    session.send(Order::Blip).await?;
                }
            }
            ["echo", rate, seconds] => {
                let times = echo(&sessions, rate.parse()?, seconds.parse()?).await;
                println!("{}", serde_json::to_string(&times)?);
                continue;
            }
            ["talk", count] => {
                let times = talk(&sessions, count.parse()?).await;
                println!("{}", serde_json::to_string(&times)?);
                continue;
            }
            _ => bail!("{line:?} is no command"),
        }
        println!("{}", serde_json::to_string(&*board.borrow())?);
    }
    Ok(())
}

/// Messages at a fixed rate; what each took, from its intended time.
async fn echo(sessions: &[mpsc::Sender<Order>], rate: f64, seconds: f64) -> Vec<u64> {
    let begun = Instant::now();
    let count = (rate * seconds) as usize;
    let mut echoes = Vec::new();
    for (number, session) in sessions.iter().cycle().take(count).enumerate() {
        let intended = begun + Duration::from_secs_f64(number as f64 / rate);
        let session = session.clone();
        echoes.push(tokio::task::spawn_local(async move {
            sleep_until(intended).await;
            let took = if is_answered(&session).await {
                intended.elapsed()
            } else {
                LONGEST_ECHO
            };
            micros(took)
        }));
    }
    let mut times = Vec::new();
    for echo in echoes {
        times.extend(echo.await);
    }
    times
}

/// `count` messages, shared out among the sessions, on each the next when the last is back; what those took that came
/// back. A session that is not answered says no more.
async fn talk(sessions: &[mpsc::Sender<Order>], count: usize) -> Vec<u64> {
    let mut talks = Vec::new();
    for (number, session) in sessions.iter().enumerate() {
        let share = (count + sessions.len() - 1 - number) / sessions.len();
        let session = session.clone();
        talks.push(tokio::task::spawn_local(async move {
            let mut times = Vec::new();
            for _ in 0..share {
                let begun = Instant::now();
                if !is_answered(&session).await {
                    break;
                }
                times.push(micros(begun.elapsed()));
            }
            times
        }));
    }
    let mut times = Vec::new();
    for talk in talks {
        times.extend(talk.await.unwrap_or_default());
    }
    times
}

/// Sends a message on `session`, and waits for its echo.
async fn is_answered(session: &mpsc::Sender<Order>) -> bool {
    let (back, came) = oneshot::channel();
    // A session that loses its connection drops the order: the echo never comes.
    session.send(Order::Echo(back)).await.is_ok()
        && timeout(LONGEST_ECHO, came)
            .await
            .is_ok_and(|came| came.is_ok())
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

struct Session {
    number: u32,
    source: SocketAddr,
    target: SocketAddr,
    board: Board,
    inbox: mpsc::Receiver<Order>,
    /// The server that served it last.
    last: Option<String>,
    cookies: Cookies,
}

type Socket = tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>;

impl Session {
    /// Connects, stays, and comes back; ends when nobody gives orders any more.
    async fn live(mut self) {
        let mut wait = FIRST_WAIT;
        loop {
            match timeout(PATIENCE, self.connect()).await {
                Ok(Ok((socket, server))) => {
                    wait = FIRST_WAIT;
                    self.arrive(&server, 1);
                    let goes_on = self.stay(socket).await;
                    self.arrive(&server, -1);
                    if !goes_on {
                        return;
                    }
                }
                Ok(Err(_)) | Err(_) => {
                    self.board.borrow_mut().failures += 1;
                    sleep(wait).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
            }
        }
    }

    /// A connection, and the name of the server.
    async fn connect(&mut self) -> Result<(Socket, String)> {
        let socket = TcpSocket::new_v4()?;
        // Comes back from an address that has connections closing: those must not keep it.
        socket.set_reuseaddr(true)?;
        socket.bind(self.source)?;
        let stream = socket.connect(self.target).await?;
        stream.set_nodelay(true)?;
        let url = format!("ws://{}/{}", self.target, self.number);
        let mut request = url.into_client_request()?;
        self.cookies.give(request.headers_mut());
        let (mut socket, answer) = client_async(request, stream).await?;
        self.cookies.keep(answer.headers());
        let first = socket.next().await.context("closed at once")??;
        let text = first.into_text()?;
        let (word, server) = text.split_once(' ').context("no greeting")?;
        // What a server knows from an earlier visit is out of date if another served the session since.
        let current = self.last.replace(server.to_owned()).as_deref() == Some(server);
        let mut status = self.board.borrow_mut();
        match word {
            "found" if current => status.found += 1,
            _ => status.fresh += 1,
        }
        drop(status);
        Ok((socket, server.to_owned()))
    }

    fn arrive(&self, server: &str, change: i32) {
        let mut status = self.board.borrow_mut();
        status.connected = status.connected.saturating_add_signed(change);
        let here = status.per_backend.entry(server.to_owned()).or_default();
        *here = here.saturating_add_signed(change);
    }

    /// Until the connection is lost; whether there is anybody to come back for.
    async fn stay(&mut self, mut socket: Socket) -> bool {
        let mut waiting = std::collections::VecDeque::new();
        loop {
            tokio::select! {
                order = self.inbox.recv() => match order {
                    None => return false,
                    Some(Order::Blip) => return true,
                    Some(Order::Echo(back)) => {
                        waiting.push_back(back);
                        if socket.send(Message::text(".".repeat(MESSAGE))).await.is_err() {
                            return true;
                        }
                    }
                },
                message = socket.next() => match message {
                    Some(Ok(Message::Text(_))) => {
                        if let Some(back) = waiting.pop_front() {
                            // Whoever asked may have given up.
                            let _ = back.send(());
                        }
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return true,
                    Some(Ok(_)) => {}
                },
            }
        }
    }
}
