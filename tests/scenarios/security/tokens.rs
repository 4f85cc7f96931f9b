//! Tokens: calls with a known token are accepted, and tokens never appear in the log.

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

pub async fn a_call_needs_a_known_token() {
    let settings = format!(
        "{TOKENS}[auth.token.ann]\nsha256 = \"{}\"\n",
        TokenHash::of(b"hostel_5ecre7-of-ann")
    );
    let mut node = prepared(&settings, &Authority::new("authority"));
    node.set_log_filter("hostel=debug,h2=trace,hyper=trace,tonic=trace,tower=trace");
    let node = node.started().await;
    let with = |token: &str| ClientOptions::new().token(token);
    assert_works(&mut connect(&node, with(TOKEN)).await.unwrap()).await;
    assert_works(&mut connect(&node, with("hostel_5ecre7-of-ann")).await.unwrap()).await;
    for wrong in [
        "hostel_5ecre7",
        &TOKEN[1..],
        &TokenHash::of(TOKEN.as_bytes()).to_string(),
    ] {
        let mut client = connect(&node, with(wrong)).await.unwrap();
        assert_unauthenticated(client.list_plugins().await);
        assert_unauthenticated(client.submit_task(task("sample", "x")).await);
    }
    let mut none = connect(&node, ClientOptions::new()).await.unwrap();
    assert_unauthenticated(none.list_plugins().await);

    // Health checks need no token.
    let mut health = HealthClient::new(channel(&node).await);
    health.check(HealthCheckRequest::default()).await.unwrap();
    let mut changes = health
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(changes.message().await.unwrap().is_some());
    // Other metadata is not a token, and a service with a similar name needs one.
    let mut raw = tonic::client::Grpc::new(channel(&node).await);
    raw.ready().await.unwrap();
    let mut request = Request::new(HealthCheckRequest::default());
    request
        .metadata_mut()
        .insert("token", TOKEN.parse().unwrap());
    let path = "/grpc.health.v1.HealthX/Check".parse().unwrap();
    let codec = tonic_prost::ProstCodec::<_, HealthCheckRequest>::default();
    assert_unauthenticated(raw.unary(request, path, codec).await);

    let log = node.log();
    assert!(
        log.contains("admitted a call") && log.contains("token=ci"),
        "{log}"
    );
    assert!(log.contains("token=ann"), "{log}");
    assert!(
        log.contains("refused a call without a known token"),
        "{log}"
    );
    assert!(!log.contains("5ecre7"), "{log}");
}

pub async fn the_tokens_file_is_reloaded() {
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
    assert_works(&mut ci).await;
    assert_unauthenticated(ann.list_plugins().await);

    write_tokens(&node, &[("ci", TOKEN), ("ann", "hostel_5ecre7-of-ann")]);
    eventually("the new token is accepted", async || {
        ann.clone().list_plugins().await.ok()
    })
    .await;
    assert_works(&mut ci).await;

    // An invalid file changes nothing and is reported without its content.
    fs::write(node.path("tokens"), format!("ci {TOKEN}\n")).unwrap();
    let reported = || {
        node.log()
            .matches("the tokens from before stay in force")
            .count()
    };
    eventually("the broken file is reported", async || {
        (reported() == 1).then_some(())
    })
    .await;
    assert_works(&mut ci).await;
    assert_works(&mut ann).await;

    // Also on an open connection.
    write_tokens(&node, &[("ann", "hostel_5ecre7-of-ann")]);
    eventually("the removed token is rejected", async || {
        ci.clone().list_plugins().await.err()
    })
    .await;
    assert_unauthenticated(ci.list_plugins().await);
    assert_works(&mut ann).await;
    let log = node.log();
    assert_eq!(reported(), 1, "{log}");
    assert!(log.contains("line 1") && !log.contains("5ecre7"), "{log}");
}

/// An open stream of messages.
struct Conversation {
    outgoing: mpsc::Sender<Message>,
    incoming: Streaming<Message>,
}

impl Conversation {
    async fn open(client: &mut DistributedClient, name: &str) -> Self {
        let (outgoing, receiver) = mpsc::channel(8);
        let first = Message {
            from_node: name.into(),
            ..Message::default()
        };
        outgoing.send(first).await.unwrap();
        let incoming = client.stream_messages(ReceiverStream::new(receiver)).await;
        let mut conversation = Self {
            outgoing,
            incoming: incoming.unwrap(),
        };
        assert!(conversation.incoming.next().await.unwrap().is_ok());
        conversation
    }

    /// Sends a message to itself, and expects the response and the message.
    async fn assert_open(&mut self, name: &str) {
        let message = Message {
            from_node: name.into(),
            to_node: name.into(),
            ..Message::default()
        };
        self.outgoing.send(message).await.unwrap();
        for _ in 0..2 {
            self.incoming.next().await.unwrap().unwrap();
        }
    }
}

pub async fn a_stream_ends_when_its_token_is_removed() {
    let node = prepared(TOKENS, &Authority::new("authority"));
    let ann = "hostel_5ecre7-of-ann";
    write_tokens(&node, &[("ci", TOKEN), ("ann", ann)]);
    let node = node.started().await;
    let with = async |token: &str| connect(&node, ClientOptions::new().token(token)).await;
    let (mut one, mut other) = (with(TOKEN).await.unwrap(), with(ann).await.unwrap());
    let mut silent = Conversation::open(&mut one, "silent").await;
    let mut busy = Conversation::open(&mut one, "busy").await;
    let mut stays = Conversation::open(&mut other, "stays").await;

    // An invalid file and changes for other tokens do not end streams.
    let logged = |what: &str| node.log().matches(what).count();
    fs::write(node.path("tokens"), "ci").unwrap();
    eventually("the broken file is reported", async || {
        (logged("the tokens from before stay in force") == 1).then_some(())
    })
    .await;
    write_tokens(&node, &[("ann", ann), ("bob", "x"), ("ci", TOKEN)]);
    eventually("the new file is used", async || {
        (logged("the tokens were read again") == 1).then_some(())
    })
    .await;
    busy.assert_open("busy").await;
    stays.assert_open("stays").await;

    write_tokens(&node, &[("ann", ann)]);
    let ends = async |conversation: &mut Conversation, name: &str| {
        let ended = async {
            loop {
                // A stream with traffic ends as well.
                if name == "busy" {
                    let word = Message {
                        from_node: name.into(),
                        ..Message::default()
                    };
                    let _ = conversation.outgoing.try_send(word);
                }
                match tokio::time::timeout(Duration::from_millis(10), conversation.incoming.next())
                    .await
                {
                    Ok(Some(Ok(_))) | Err(_) => {}
                    Ok(Some(Err(status))) => return status,
                    Ok(None) => panic!("the stream ends without a status"),
                }
            }
        };
        let ended = tokio::time::timeout(DEADLINE, ended).await;
        let status = ended.expect("an end of the stream");
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
        assert!(status.message().contains("was removed"), "{status}");
    };
    ends(&mut silent, "silent").await;
    ends(&mut busy, "busy").await;
    stays.assert_open("stays").await;
    let log = node.log();
    assert_eq!(logged("ended a stream"), 2, "{log}");
    assert!(!log.contains("5ecre7"), "{log}");
}
