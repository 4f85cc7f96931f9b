//! Tokens: who shows one is let in, and nobody ever reads it.

use super::*;
use hostel::proto::distributed::Message;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Streaming, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

async fn channel(node: &Node) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{}", node.address()));
    endpoint.unwrap().connect().await.unwrap()
}

pub async fn tokens() {
    let settings = format!(
        "{TOKENS}[auth.token.ann]\nsha256 = \"{}\"\n",
        TokenHash::of(b"hostel_5ecre7-of-ann")
    );
    let mut node = prepared(&settings, &Authority::new("authority"));
    node.logging("hostel=debug,h2=trace,hyper=trace,tonic=trace,tower=trace");
    let node = node.started().await;
    let with = |token: &str| ClientOptions::new().token(token);
    works(&mut connect(&node, with(TOKEN)).await.unwrap()).await;
    works(&mut connect(&node, with("hostel_5ecre7-of-ann")).await.unwrap()).await;
    for wrong in [
        "hostel_5ecre7",
        &TOKEN[1..],
        &TokenHash::of(TOKEN.as_bytes()).to_string(),
    ] {
        let mut client = connect(&node, with(wrong)).await.unwrap();
        unauthenticated(client.list_plugins().await);
        unauthenticated(client.submit_task(task("sample", "x")).await);
    }
    let mut none = connect(&node, ClientOptions::new()).await.unwrap();
    unauthenticated(none.list_plugins().await);

    // Probes need none.
    let mut health = HealthClient::new(channel(&node).await);
    health.check(HealthCheckRequest::default()).await.unwrap();
    let mut changes = health
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(changes.message().await.unwrap().is_some());
    // Other metadata is no token, nor is a service whose name begins alike.
    let mut raw = tonic::client::Grpc::new(channel(&node).await);
    raw.ready().await.unwrap();
    let mut request = Request::new(HealthCheckRequest::default());
    request
        .metadata_mut()
        .insert("token", TOKEN.parse().unwrap());
    let path = "/grpc.health.v1.HealthX/Check".parse().unwrap();
    let codec = tonic_prost::ProstCodec::<_, HealthCheckRequest>::default();
    unauthenticated(raw.unary(request, path, codec).await);

    let log = node.log();
    assert!(
        log.contains("accepted a call") && log.contains("token=ci"),
        "{log}"
    );
    assert!(log.contains("token=ann"), "{log}");
    assert!(
        log.contains("refused: no token that is known here"),
        "{log}"
    );
    assert!(!log.contains("5ecre7"), "{log}");
}

pub async fn tokens_file() {
    let node = prepared(TOKENS, &Authority::new("authority"))
        .started()
        .await;
    let mut ci = connect(&node, ClientOptions::new().token(TOKEN))
        .await
        .unwrap();
    let ann = "hostel_5ecre7-of-ann";
    let mut ann = connect(&node, ClientOptions::new().token(ann))
        .await
        .unwrap();
    works(&mut ci).await;
    unauthenticated(ann.list_plugins().await);

    write_tokens(&node, &[("ci", TOKEN), ("ann", "hostel_5ecre7-of-ann")]);
    eventually("the new token is let in", async || {
        ann.clone().list_plugins().await.ok()
    })
    .await;
    works(&mut ci).await;

    // What cannot be read changes nothing, and is told without what it holds.
    fs::write(node.path("tokens"), format!("ci {TOKEN}\n")).unwrap();
    let told = || {
        node.log()
            .matches("the tokens from before stay in force")
            .count()
    };
    eventually("the broken file is told", async || {
        (told() == 1).then_some(())
    })
    .await;
    works(&mut ci).await;
    works(&mut ann).await;

    // On the connection that it has, too.
    write_tokens(&node, &[("ann", "hostel_5ecre7-of-ann")]);
    eventually("the removed token is refused", async || {
        ci.clone().list_plugins().await.err()
    })
    .await;
    unauthenticated(ci.list_plugins().await);
    works(&mut ann).await;
    let log = node.log();
    assert_eq!(told(), 1, "{log}");
    assert!(log.contains("line 1") && !log.contains("5ecre7"), "{log}");
}

/// A stream that is open: what it says goes in here, and what it hears comes out.
struct Talk {
    say: mpsc::Sender<Message>,
    hear: Streaming<Message>,
}

impl Talk {
    async fn open(client: &mut DistributedClient, name: &str) -> Self {
        let (say, said) = mpsc::channel(8);
        let first = Message {
            from_node: name.into(),
            ..Message::default()
        };
        say.send(first).await.unwrap();
        let hear = client.stream_messages(ReceiverStream::new(said)).await;
        let mut talk = Self {
            say,
            hear: hear.unwrap(),
        };
        assert!(talk.hear.next().await.unwrap().is_ok());
        talk
    }

    /// Says something to itself, and hears that it was sent and what it was.
    async fn goes_on(&mut self, name: &str) {
        let message = Message {
            from_node: name.into(),
            to_node: name.into(),
            ..Message::default()
        };
        self.say.send(message).await.unwrap();
        for _ in 0..2 {
            self.hear.next().await.unwrap().unwrap();
        }
    }
}

pub async fn streams_end_with_their_token() {
    let node = prepared(TOKENS, &Authority::new("authority"));
    let ann = "hostel_5ecre7-of-ann";
    write_tokens(&node, &[("ci", TOKEN), ("ann", ann)]);
    let node = node.started().await;
    let with = async |token: &str| connect(&node, ClientOptions::new().token(token)).await;
    let (mut one, mut other) = (with(TOKEN).await.unwrap(), with(ann).await.unwrap());
    let mut silent = Talk::open(&mut one, "silent").await;
    let mut busy = Talk::open(&mut one, "busy").await;
    let mut stays = Talk::open(&mut other, "stays").await;

    // Neither a file that cannot be read nor one that changes for others ends anything.
    let logged = |what: &str| node.log().matches(what).count();
    fs::write(node.path("tokens"), "ci").unwrap();
    eventually("the broken file is told", async || {
        (logged("the tokens from before stay in force") == 1).then_some(())
    })
    .await;
    write_tokens(&node, &[("ann", ann), ("bob", "x"), ("ci", TOKEN)]);
    eventually("the new file is in force", async || {
        (logged("the tokens were read again") == 1).then_some(())
    })
    .await;
    busy.goes_on("busy").await;
    stays.goes_on("stays").await;

    write_tokens(&node, &[("ann", ann)]);
    let ends = async |talk: &mut Talk, name: &str| {
        let ended = async {
            loop {
                // Who talks on is not spared.
                if name == "busy" {
                    let word = Message {
                        from_node: name.into(),
                        ..Message::default()
                    };
                    let _ = talk.say.try_send(word);
                }
                match tokio::time::timeout(Duration::from_millis(10), talk.hear.next()).await {
                    Ok(Some(Ok(_))) | Err(_) => {}
                    Ok(Some(Err(status))) => return status,
                    Ok(None) => panic!("it ends without a word"),
                }
            }
        };
        let ended = tokio::time::timeout(PATIENCE, ended).await;
        let status = ended.expect("it ends");
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
        assert!(status.message().contains("taken out"), "{status}");
    };
    ends(&mut silent, "silent").await;
    ends(&mut busy, "busy").await;
    stays.goes_on("stays").await;
    let log = node.log();
    assert_eq!(logged("ended a stream"), 2, "{log}");
    assert!(!log.contains("5ecre7"), "{log}");
}
