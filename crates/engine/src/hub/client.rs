//! Requests to the hub, and to where it redirects.
//!
//! Redirects are followed here and not by the HTTP library, because the token is for the hub's own origin alone and because what counts
//! about a file is what the hub itself says. Nothing is asked for packed, so that no body is longer than it seems.

use std::{
    io::{self, Read},
    time::{Duration, Instant},
};

use ureq::{
    Agent, Timeout,
    http::{HeaderMap, HeaderValue, header},
};

use super::{
    HubError, HubLimits, HubOptions, ModelName,
    address::Address,
    answers::{check_encoding, header, number_header},
    error::shown,
    limits::from_now,
    watch::Watch,
};

const PUBLIC: &str = "https://huggingface.co";

/// How long a request may take.
#[derive(Clone, Copy)]
pub(super) enum Span {
    /// Until then, body included.
    Until(Instant),
    /// Until then to its headers; what follows is watched by [`Body`].
    Watched(Instant),
}

impl Span {
    fn end(self) -> Instant {
        match self {
            Span::Until(end) | Span::Watched(end) => end,
        }
    }
}

/// The last answer of a chain of redirects.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: ureq::Body,
    /// Status and headers of the last answer that the hub itself gave: the same, or those of the redirect that left it.
    pub(super) hub: (u16, HeaderMap),
    host: String,
    is_hub: bool,
}

/// Asks about one model.
pub(super) struct Client {
    agent: Agent,
    endpoint: Address,
    base: String,
    token: Option<HeaderValue>,
    model: String,
    limits: HubLimits,
    asked_pause: Option<Duration>,
}

impl Client {
    /// # Errors
    /// Endpoint or token of the options are none.
    pub(super) fn new(options: &HubOptions, model: &ModelName) -> Result<Client, HubError> {
        let base = options.endpoint.as_deref().unwrap_or(PUBLIC).trim_end_matches('/').to_owned();
        let refused = |reason| HubError::Endpoint { endpoint: base.clone(), reason };
        let endpoint = Address::parse(&base).map_err(refused)?;
        if base.contains(['?', '#']) {
            return Err(refused("it has more than a path"));
        }
        let bearer = |token: &String| {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| HubError::Token)?;
            value.set_sensitive(true);
            if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(HubError::Token);
            }
            Ok(value)
        };
        let token = options.token.as_ref().map(bearer).transpose()?;
        Ok(Client {
            agent: agent(),
            endpoint,
            base,
            token,
            model: model.to_string(),
            limits: options.limits.clone(),
            asked_pause: None,
        })
    }

    pub(super) fn limits(&self) -> &HubLimits {
        &self.limits
    }

    pub(super) fn model(&self) -> &str {
        &self.model
    }

    /// The pause that the last answer asked for.
    pub(super) fn asked_pause(&mut self) -> Option<Duration> {
        self.asked_pause.take()
    }

    /// An address of the hub.
    pub(super) fn address(&self, path: &str) -> Result<Address, HubError> {
        Address::parse(&format!("{}/{path}", self.base)).map_err(|reason| self.refuse(path, reason))
    }

    /// The list's, or another small body's, bytes.
    pub(super) fn small(&mut self, what: &str, address: &Address, end: Instant) -> Result<Vec<u8>, HubError> {
        let answer = self.get(what, address, None, Span::Until(end), |_| false)?;
        if answer.status != 200 {
            return Err(self.refuse(what, format!("status {}", answer.status)));
        }
        check_encoding(&answer.headers).map_err(|reason| self.refuse(what, reason))?;
        let limit = self.limits.list_bytes;
        let too_long = || self.refuse(what, format!("more than {limit} bytes"));
        if number_header(&answer.headers, header::CONTENT_LENGTH.as_str())
            .map_err(|reason| self.refuse(what, reason))?
            .is_some_and(|length| length > limit)
        {
            return Err(too_long());
        }
        let mut text = Vec::new();
        let host = answer.host;
        answer.body.into_reader().take(limit.saturating_add(1)).read_to_end(&mut text).map_err(|error| {
            match self.explain(what, &host, error.into(), Span::Until(end)) {
                HubError::Unreachable { model, reason } => HubError::Broken { model, file: what.to_owned(), reason },
                other => other,
            }
        })?;
        if text.len() as u64 > limit { Err(too_long()) } else { Ok(text) }
    }

    /// Follows redirects from `address` to an answer that is none, or to one that leaves the hub and is `enough`.
    ///
    /// # Errors
    /// No answer in time, one that makes no sense, or a status from 400 on (but 416).
    pub(super) fn get(
        &mut self,
        what: &str,
        address: &Address,
        range: Option<&str>,
        span: Span,
        enough: impl Fn(&HeaderMap) -> bool,
    ) -> Result<Answer, HubError> {
        self.asked_pause = None;
        let mut address = address.clone();
        let mut hub = None;
        // Who has left the hub does not come back as the hub.
        let mut is_hub = true;
        for _ in 0..=self.limits.redirects {
            is_hub &= address.origin() == self.endpoint.origin();
            let host = address.origin().to_string();
            let response = self.ask(&address, range, span, is_hub).map_err(|error| {
                let error = self.explain(what, &host, error, span);
                self.reconnect();
                error
            })?;
            let (parts, body) = response.into_parts();
            let status = parts.status.as_u16();
            if is_hub {
                hub = Some((status, parts.headers.clone()));
            }
            let mut answer =
                Answer { status, headers: parts.headers, body, hub: (status, HeaderMap::new()), host, is_hub };
            let next = match status {
                301 | 302 | 303 | 307 | 308 => {
                    let to = header(&answer.headers, "location").map_err(|reason| self.refuse(what, reason))?;
                    let to = to.ok_or_else(|| self.refuse(what, "a redirect that leads nowhere"))?;
                    let next = address.join(to);
                    Some(next.map_err(|reason| self.refuse(what, format!("redirect to `{}`: {reason}", shown(to))))?)
                }
                200 | 206 | 416 => None,
                _ => return Err(self.status(what, &answer)),
            };
            match next {
                Some(next) if next.origin() == self.endpoint.origin() || !is_hub || !enough(&answer.headers) => {
                    address = next;
                }
                _ => {
                    answer.hub = hub.ok_or_else(|| self.refuse(what, "it is none of the hub's own"))?;
                    return Ok(answer);
                }
            }
        }
        Err(self.refuse(what, format!("more than {} redirects", self.limits.redirects)))
    }

    fn ask(
        &self,
        address: &Address,
        range: Option<&str>,
        span: Span,
        is_hub: bool,
    ) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let left = span.end().saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let connect = Some(self.limits.connect.min(left));
        let mut request = self
            .agent
            .get(address.uri())
            .config()
            .timeout_resolve(connect)
            .timeout_connect(connect)
            .timeout_send_request(connect)
            .timeout_recv_response(Some(self.limits.answer.min(left)))
            .timeout_global(matches!(span, Span::Until(_)).then_some(left))
            .build()
            .header(header::ACCEPT_ENCODING, "identity");
        if let Some(range) = range {
            request = request.header(header::RANGE, range);
        }
        if let Some(token) = self.token.as_ref().filter(|_| is_hub) {
            request = request.header(header::AUTHORIZATION, token.clone());
        }
        request.call()
    }

    /// Watches a body from here on; the connection is given up when it stalls.
    pub(super) fn watch(&mut self, end: Instant) -> io::Result<Watch> {
        let agent = self.agent.clone();
        Watch::start(end, move || agent.shutdown())
    }

    /// Connections that a watch gave up, or that broke, are not used again.
    pub(super) fn reconnect(&mut self) {
        self.agent = agent();
    }

    /// An answer that makes no sense.
    pub(super) fn refuse(&self, what: &str, reason: impl Into<String>) -> HubError {
        HubError::Answer { model: self.model.clone(), what: what.to_owned(), reason: reason.into() }
    }

    pub(super) fn silent(&self, what: &str, host: &str, reason: String) -> HubError {
        HubError::Silent { model: self.model.clone(), what: what.to_owned(), host: host.to_owned(), reason }
    }

    /// Why a download ends in which no attempt moved on.
    pub(super) fn given_up(&self) -> String {
        format!("nothing moved on for {:?}", self.limits.silence)
    }

    fn status(&mut self, what: &str, answer: &Answer) -> HubError {
        let status = answer.status;
        let model = self.model.clone();
        if answer.is_hub && matches!(status, 401 | 403) {
            let hint = match (self.token.is_some(), status) {
                (false, _) => {
                    "it does not exist, is private, or asks for consent; set HF_TOKEN to the token of an account that may read it"
                }
                (true, 401) => "the token (HF_TOKEN, or the stored one) is not valid for it",
                (true, _) => {
                    "the account of the token (HF_TOKEN, or the stored one) may not read it; its owner may ask for consent on the model's page"
                }
            };
            return HubError::Denied { model, status, hint };
        }
        let mut note = String::new();
        if !answer.is_hub {
            note = format!(" from {}, where it redirects", answer.host);
        }
        // A date, the other form, is not worth a parser: the usual pauses are as good.
        if let Ok(Some(seconds)) = number_header(&answer.headers, "retry-after") {
            self.asked_pause = Some(Duration::from_secs(seconds));
            note += &format!(" and asks for {seconds} s of patience");
        }
        HubError::Status { model, what: what.to_owned(), status, note }
    }

    fn explain(&self, what: &str, host: &str, error: ureq::Error, span: Span) -> HubError {
        let unreachable = |reason: String| HubError::Unreachable { model: self.model.clone(), reason };
        let limits = &self.limits;
        match error {
            ureq::Error::Timeout(timeout) => {
                let connect = limits.connect;
                let reason = match (timeout, span) {
                    (_, Span::Until(end)) if Instant::now() >= end => {
                        format!("no whole answer within {:?}", limits.question)
                    }
                    (_, Span::Watched(end)) if Instant::now() >= end => self.given_up(),
                    (Timeout::Resolve, _) => format!("its address was not found within {connect:?}"),
                    (Timeout::Connect, _) => format!("no connection within {connect:?}"),
                    (Timeout::SendRequest, _) => format!("it took no request within {connect:?}"),
                    (Timeout::RecvResponse, _) => format!("nothing usable came within {:?}", limits.answer),
                    _ => "it took too long".to_owned(),
                };
                self.silent(what, host, reason)
            }
            ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => {
                unreachable(shown(&format!("{host}: {error}")))
            }
            ureq::Error::Io(source) => match source.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>()) {
                Some(ureq::Error::Timeout(timeout)) => self.explain(what, host, ureq::Error::Timeout(*timeout), span),
                _ => unreachable(shown(&format!("{host}: {source}"))),
            },
            ureq::Error::ConnectProxyFailed(_) | ureq::Error::Rustls(_) | ureq::Error::Tls(_) => {
                unreachable(shown(&format!("{host}: {error}")))
            }
            other => self.refuse(what, shown(&other.to_string())),
        }
    }
}

impl Answer {
    pub(super) fn host(&self) -> &str {
        &self.host
    }
}

fn agent() -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("elgen/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

/// A body that must move on.
pub(super) struct Body<'a> {
    reader: ureq::BodyReader<'static>,
    watch: &'a Watch,
    limits: &'a HubLimits,
    /// When to give up although the window has not passed.
    silence: Instant,
    in_window: u64,
}

impl<'a> Body<'a> {
    /// `silence` is when the download as a whole is given up if nothing moves on.
    pub(super) fn new(body: ureq::Body, watch: &'a Watch, limits: &'a HubLimits, silence: Instant) -> Body<'a> {
        let mut body = Body { reader: body.into_reader(), watch, limits, silence, in_window: 0 };
        body.next_window();
        body
    }

    fn next_window(&mut self) {
        self.in_window = 0;
        self.watch.move_to(from_now(self.limits.stall).min(self.silence));
    }

    /// When the download as a whole is given up; later than at the beginning if the body has moved on.
    pub(super) fn silence(&self) -> Instant {
        self.silence
    }
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.in_window = self.in_window.saturating_add(read as u64);
        if self.in_window >= self.limits.stall_bytes {
            self.silence = from_now(self.limits.silence);
            self.next_window();
        }
        Ok(read)
    }
}
