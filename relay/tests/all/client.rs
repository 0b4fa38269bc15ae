//! A client in memory: lines in, lines out.

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadHalf, WriteHalf};

pub(crate) struct Client {
    read: BufReader<ReadHalf<DuplexStream>>,
    write: Option<WriteHalf<DuplexStream>>,
    next: u64,
}

impl Client {
    pub(crate) fn over(stream: DuplexStream) -> Self {
        let (read, write) = tokio::io::split(stream);
        Self {
            read: BufReader::new(read),
            write: Some(write),
            next: 1,
        }
    }

    pub(crate) async fn send(&mut self, line: impl AsRef<[u8]>) {
        let write = self.write.as_mut().unwrap();
        write.write_all(line.as_ref()).await.unwrap();
        write.write_all(b"\n").await.unwrap();
    }

    pub(crate) async fn close(&mut self) {
        self.write.take().unwrap().shutdown().await.unwrap();
    }

    pub(crate) async fn read(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.read.read_line(&mut line).await.unwrap() {
            0 => None,
            _ => Some(serde_json::from_str(&line).unwrap()),
        }
    }

    pub(crate) async fn initialize(&mut self, name: &str) -> Value {
        let params = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": name, "version": "1" } });
        let answer = self.request("initialize", params).await;
        self.send(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }).to_string())
            .await;
        answer
    }

    pub(crate) async fn request(&mut self, method: &str, params: Value) -> Value {
        let id = self.next;
        self.next += 1;
        self.send(json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string())
            .await;
        loop {
            let answer = self.read().await.unwrap();
            if answer["id"] == id {
                return answer;
            }
        }
    }

    /// The structured content of a call, and whether it is an error.
    pub(crate) async fn call(&mut self, tool: &str, arguments: Value) -> (Value, bool) {
        let answer = self
            .request("tools/call", json!({ "name": tool, "arguments": arguments }))
            .await;
        let result = &answer["result"];
        assert!(result["structuredContent"].is_object(), "{answer}");
        (result["structuredContent"].clone(), result["isError"] == true)
    }
}
