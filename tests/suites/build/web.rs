//! A web server with a few pages.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// What is at a path.
#[derive(Clone)]
pub(crate) struct Page {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Page {
    pub(crate) fn new(body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    pub(crate) fn moved(to: &str) -> Self {
        Self {
            status: 302,
            headers: vec![("Location", to.to_owned())],
            body: Vec::new(),
        }
    }

    pub(crate) fn dated(mut self, date: &str) -> Self {
        self.headers.push(("Last-Modified", date.to_owned()));
        self
    }

    pub(crate) fn marked(mut self, etag: &str) -> Self {
        self.headers.push(("ETag", etag.to_owned()));
        self
    }
}

#[derive(Default)]
struct Inner {
    pages: Mutex<BTreeMap<String, Page>>,
    asked: Mutex<Vec<String>>,
    end: AtomicBool,
}

/// The server; ends with the test.
pub(crate) struct Web {
    port: u16,
    inner: Arc<Inner>,
}

impl Web {
    pub(crate) fn start(pages: Vec<(&str, Page)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let inner = Arc::new(Inner::default());
        let pages = pages
            .into_iter()
            .map(|(path, page)| (path.to_owned(), page));
        *inner.pages.lock().expect("no panic") = pages.collect();
        let own = Arc::clone(&inner);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if own.end.load(Ordering::Relaxed) {
                    return;
                }
                let _ = own.serve(stream);
            }
        });
        Self { port, inner }
    }

    pub(crate) fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn set(&self, path: &str, page: Page) {
        let mut pages = self.inner.pages.lock().expect("no panic");
        pages.insert(path.to_owned(), page);
    }

    /// What was asked for since the last look: `METHOD PATH IF-NONE-MATCH STATUS`.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.inner.asked.lock().expect("no panic"))
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.inner.end.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Inner {
    /// One request a connection.
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut from = BufReader::new(stream.try_clone()?);
        let (mut line, mut mark) = (String::new(), String::new());
        from.read_line(&mut line)?;
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let [method, path, ..] = words.as_slice() else {
            return Ok(());
        };
        loop {
            line.clear();
            from.read_line(&mut line)?;
            match line.trim().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("if-none-match") => {
                    mark = value.trim().to_owned();
                }
                Some(_) => {}
                None => break,
            }
        }
        let page = self.pages.lock().expect("no panic").get(path).cloned();
        let mut page = page.unwrap_or(Page {
            status: 404,
            headers: Vec::new(),
            body: Vec::new(),
        });
        let same = |(name, value): &(&str, String)| *name == "ETag" && *value == mark;
        if page.headers.iter().any(same) {
            page.status = 304;
            page.body.clear();
        }
        let asked = format!("{method} {path} {mark} {}", page.status);
        self.asked.lock().expect("no panic").push(asked);
        let len = page.body.len();
        write!(
            stream,
            "HTTP/1.1 {} X\r\nConnection: close\r\nContent-Length: {len}\r\n",
            page.status
        )?;
        for (name, value) in &page.headers {
            write!(stream, "{name}: {value}\r\n")?;
        }
        stream.write_all(b"\r\n")?;
        stream.write_all(&page.body)
    }
}
