
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_exchange.h"
#include "ngx_http_iothub_hub_token.h"


/* Authorization is pushed beside the headers of the exchange */

#define NGX_HTTP_IOTHUB_OWN_HEADERS  1


static ngx_uint_t ngx_http_iothub_exchange_sent(ngx_http_request_t *sr);
static void ngx_http_iothub_exchange_run(ngx_http_request_t *sr);
static ngx_int_t ngx_http_iothub_exchange_headers(ngx_http_request_t *sr,
    ngx_http_iothub_exchange_t *ex);
static ngx_int_t ngx_http_iothub_exchange_done(ngx_http_request_t *sr,
    void *data, ngx_int_t rc);
static void ngx_http_iothub_exchange_read_headers(ngx_http_request_t *sr,
    ngx_http_iothub_exchange_t *ex);
static ngx_http_iothub_exchange_t *ngx_http_iothub_exchange_get(
    ngx_http_request_t *r);
static ngx_int_t ngx_http_iothub_exchange_header_filter(
    ngx_http_request_t *r);
static ngx_uint_t ngx_http_iothub_exchange_apart(ngx_http_request_t *r,
    ngx_http_iothub_exchange_t *ex);
static ngx_int_t ngx_http_iothub_exchange_body_filter(ngx_http_request_t *r,
    ngx_chain_t *in);
static ngx_int_t ngx_http_iothub_exchange_take(ngx_http_request_t *r,
    ngx_http_iothub_exchange_t *ex, ngx_buf_t *b);


static ngx_http_output_header_filter_pt
    ngx_http_iothub_exchange_next_header_filter;
static ngx_http_output_body_filter_pt
    ngx_http_iothub_exchange_next_body_filter;


static ngx_str_t  ngx_http_iothub_exchange_uri = ngx_string("/");


/* answer headers that are kept, and where */

static const struct {
    ngx_str_t   name;
    size_t      offset;
} ngx_http_iothub_exchange_kept[] = {
    { ngx_string("iothub-errorcode"),
      offsetof(ngx_http_iothub_exchange_t, error) },
    { ngx_string("x-ms-request-id"),
      offsetof(ngx_http_iothub_exchange_t, request_id) },
    { ngx_string("retry-after"),
      offsetof(ngx_http_iothub_exchange_t, retry_after) },
    { ngx_string("date"),
      offsetof(ngx_http_iothub_exchange_t, date) },
    { ngx_null_string, 0 }
};


ngx_int_t
ngx_http_iothub_exchange_start(ngx_http_request_t *r,
    ngx_http_iothub_exchange_t *ex)
{
    ngx_http_request_t       *sr;
    ngx_http_request_body_t  *rb;

    ex->status = 0;
    ex->complete = 0;
    ex->late = 0;
    ex->timed_out = 0;
    ex->cut = 0;
    ex->repeats = 0;
    ngx_str_null(&ex->answer);
    ngx_str_null(&ex->error);
    ngx_str_null(&ex->request_id);
    ngx_str_null(&ex->retry_after);
    ngx_str_null(&ex->date);

    ex->post.handler = ngx_http_iothub_exchange_done;
    ex->post.data = ex;

    /* an empty body of its own: nginx would send the webhook's otherwise */

    rb = ngx_pcalloc(r->pool, sizeof(ngx_http_request_body_t));
    if (rb == NULL) {
        return NGX_ERROR;
    }

    rb->bufs = ex->body;

    if (ngx_http_subrequest(r, &ngx_http_iothub_exchange_uri, NULL, &sr,
                            &ex->post, NGX_HTTP_SUBREQUEST_BACKGROUND)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    /* it was posted only: all of it may still be changed */

    sr->srv_conf = ex->hub->ctx->srv_conf;
    sr->loc_conf = ex->hub->loc_conf[ex->proxy];
    sr->method = ex->method;
    sr->method_name = ex->method_name;
    sr->http_version = NGX_HTTP_VERSION_11;
    sr->unparsed_uri = ex->uri;
    sr->valid_unparsed_uri = 1;
    sr->request_body = rb;
    sr->discard_body = 0;
    sr->write_event_handler = ngx_http_iothub_exchange_run;

    ex->request = sr;

    ngx_log_debug3(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "iothub exchange: \"%V %V\" body:%O",
                   &ex->method_name, &ex->uri, ex->body_size);

    return NGX_OK;
}


ngx_int_t
ngx_http_iothub_exchange_give_up(ngx_http_iothub_exchange_t *ex)
{
    ngx_http_upstream_t  *u;

    u = ex->request->upstream;

    if (u == NULL
        || u->cleanup == NULL
        || ngx_http_iothub_exchange_sent(ex->request))
    {
        return NGX_DECLINED;
    }

    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, ex->request->connection->log, 0,
                   "iothub exchange given up");

    ex->handler = NULL;

    /* as when nginx ends a request before its time: the connection closes */

    (*u->cleanup)(ex->request);

    return NGX_OK;
}


/* on this connection, or on one that died before it */

static ngx_uint_t
ngx_http_iothub_exchange_sent(ngx_http_request_t *sr)
{
    ngx_uint_t                  i;
    ngx_http_upstream_state_t  *state;

    if (sr->upstream->request_sent) {
        return 1;
    }

    state = sr->upstream_states->elts;

    for (i = 0; i < sr->upstream_states->nelts; i++) {
        if (state[i].bytes_sent) {
            return 1;
        }
    }

    return 0;
}


static void
ngx_http_iothub_exchange_run(ngx_http_request_t *sr)
{
    ngx_http_iothub_exchange_t  *ex;

    ex = sr->post_subrequest->data;

    sr->write_event_handler = ngx_http_request_empty_handler;

    if (ngx_http_iothub_exchange_headers(sr, ex) != NGX_OK) {
        ngx_http_finalize_request(sr, NGX_HTTP_INTERNAL_SERVER_ERROR);
        return;
    }

    ngx_http_finalize_request(sr, ex->hub->proxy_handler(sr));
}


/*
 * The headers are built at the last moment: the token is a worker's shared
 * one, and what the proxy makes of the list is a copy.
 */

static ngx_int_t
ngx_http_iothub_exchange_headers(ngx_http_request_t *sr,
    ngx_http_iothub_exchange_t *ex)
{
    ngx_uint_t        i;
    ngx_table_elt_t  *h;

    ngx_memzero(&sr->headers_in, sizeof(ngx_http_headers_in_t));

    sr->headers_in.content_length_n = ex->body ? ex->body_size : -1;
    sr->headers_in.keep_alive_n = -1;

    if (ngx_list_init(&sr->headers_in.headers, sr->pool,
                      ex->nheaders + NGX_HTTP_IOTHUB_OWN_HEADERS,
                      sizeof(ngx_table_elt_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    h = ngx_list_push(&sr->headers_in.headers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    if (ngx_http_iothub_hub_token(ex->hub, ex->endpoint, ex->key,
                                  &ex->device_id, sr->pool, &h->value)
        != NGX_OK)
    {
        ngx_log_error(NGX_LOG_ERR, sr->connection->log, 0,
                      "could not sign a token of hub \"%V\"",
                      &ex->hub->name);
        return NGX_ERROR;
    }

    ngx_str_set(&h->key, "Authorization");
    h->lowcase_key = (u_char *) "authorization";
    h->hash = 1;
#if (nginx_version >= 1023000)
    h->next = NULL;
#endif

    for (i = 0; i < ex->nheaders; i++) {

        h = ngx_list_push(&sr->headers_in.headers);
        if (h == NULL) {
            return NGX_ERROR;
        }

        h->key = ex->headers[i].key;
        h->value = ex->headers[i].value;
        h->lowcase_key = ex->headers[i].lowcase.data;
        h->hash = 1;
#if (nginx_version >= 1023000)
        h->next = NULL;
#endif
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_exchange_done(ngx_http_request_t *sr, void *data,
    ngx_int_t rc)
{
    ngx_http_iothub_exchange_t  *ex = data;

    ngx_http_iothub_exchange_pt  handler;

    handler = ex->handler;

    if (handler == NULL) {
        return NGX_OK;
    }

    ex->handler = NULL;

    /*
     * The return code tells what nginx met, not what the hub said: a local
     * 502 or 413 looks like an answer.  The status was noted by the filter.
     */

    if (ex->status == 0 && rc == NGX_HTTP_GATEWAY_TIME_OUT
        && sr->upstream && ngx_http_iothub_exchange_sent(sr))
    {
        ex->timed_out = 1;
    }

    if (rc == NGX_ERROR || rc >= NGX_HTTP_SPECIAL_RESPONSE) {
        ex->complete = 0;
    }

    if (ex->status) {
        ngx_http_iothub_exchange_read_headers(sr, ex);
    }

    if (sr->upstream_states && sr->upstream_states->nelts) {
        ex->repeats = sr->upstream_states->nelts - 1;
    }

    ngx_log_debug4(NGX_LOG_DEBUG_HTTP, sr->connection->log, 0,
                   "iothub exchange done: %ui rc:%i complete:%d \"%V\"",
                   ex->status, rc, ex->complete, &ex->error);

    handler(ex);

    /*
     * With anything else, nginx would make an error page of its own for the
     * subrequest, and call this handler again when it was sent.
     */

    return NGX_OK;
}


static void
ngx_http_iothub_exchange_read_headers(ngx_http_request_t *sr,
    ngx_http_iothub_exchange_t *ex)
{
    ngx_str_t        *field;
    ngx_uint_t        i, k;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    if (sr->upstream == NULL) {
        return;
    }

    part = &sr->upstream->headers_in.headers.part;
    h = part->elts;

    for (i = 0; /* void */ ; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                break;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        for (k = 0; ngx_http_iothub_exchange_kept[k].name.len; k++) {

            if (h[i].key.len != ngx_http_iothub_exchange_kept[k].name.len
                || ngx_strncmp(h[i].lowcase_key,
                               ngx_http_iothub_exchange_kept[k].name.data,
                               h[i].key.len)
                   != 0)
            {
                continue;
            }

            field = (ngx_str_t *) ((u_char *) ex
                                   + ngx_http_iothub_exchange_kept[k].offset);

            /* the first of its name counts */

            if (field->data == NULL) {
                *field = h[i].value;
            }
        }
    }
}


/* a subrequest is an exchange if it ends in this room */

static ngx_http_iothub_exchange_t *
ngx_http_iothub_exchange_get(ngx_http_request_t *r)
{
    if (r == r->main
        || r->post_subrequest == NULL
        || r->post_subrequest->handler != ngx_http_iothub_exchange_done)
    {
        return NULL;
    }

    return r->post_subrequest->data;
}


static ngx_int_t
ngx_http_iothub_exchange_header_filter(ngx_http_request_t *r)
{
    ngx_http_iothub_exchange_t  *ex;

    ex = ngx_http_iothub_exchange_get(r);

    if (ex == NULL) {
        return ngx_http_iothub_exchange_next_header_filter(r);
    }

    r->header_sent = 1;

    /*
     * nginx takes an interim answer for the whole, and would wait for a body
     * of it until the connection is closed.
     */

    if (r->upstream && r->upstream->headers_in.status_n
        && r->upstream->headers_in.status_n < NGX_HTTP_OK)
    {
        return NGX_ERROR;
    }

    /* an HTTP/0.9 answer has no status line, and is none */

    if (r->upstream && r->upstream->headers_in.status_n) {
        ex->status = r->upstream->headers_in.status_n;
    }

    ex->cut = ngx_http_iothub_exchange_apart(r, ex);

    return ex->cut ? NGX_ERROR : NGX_OK;
}


/*
 * While nginx waits for the rest of an answer, it stops the timer of the
 * sender's connection.  When the request went on, that timer is another's: of
 * limit_req or limit_rate at the target, which would wait forever.
 */

static ngx_uint_t
ngx_http_iothub_exchange_apart(ngx_http_request_t *r,
    ngx_http_iothub_exchange_t *ex)
{
    off_t                 length;
    ngx_http_upstream_t  *u;

    u = r->upstream;

    if (!ex->late || u == NULL || ex->status == NGX_HTTP_NO_CONTENT) {
        return 0;
    }

    length = u->headers_in.content_length_n;

    return length < 0 || u->buffer.last - u->buffer.pos < length;
}


static ngx_int_t
ngx_http_iothub_exchange_body_filter(ngx_http_request_t *r, ngx_chain_t *in)
{
    ngx_chain_t                 *cl;
    ngx_http_iothub_exchange_t  *ex;

    ex = ngx_http_iothub_exchange_get(r);

    if (ex == NULL) {
        return ngx_http_iothub_exchange_next_body_filter(r, in);
    }

    for (cl = in; cl; cl = cl->next) {

        if (ngx_http_iothub_exchange_take(r, ex, cl->buf) != NGX_OK) {
            return NGX_ERROR;
        }

        /* nginx sends this after the whole answer, a flush after a part */

        if ((cl->buf->last_in_chain || cl->buf->last_buf) && !ex->cut) {
            ex->complete = 1;
        }
    }

    if (ex->late && !ex->complete && r->upstream->length != 0) {

        /*
         * An error of a body filter is one of the sender's connection to
         * nginx, and would cut what the target answers: the answer ends here
         * as if it were whole, and its connection is not used again.
         */

        ex->cut = 1;
        r->upstream->length = 0;
        r->upstream->keepalive = 0;
    }

    return NGX_OK;
}


/* consumes a buffer; what does not fit is dropped, but read to its end */

static ngx_int_t
ngx_http_iothub_exchange_take(ngx_http_request_t *r,
    ngx_http_iothub_exchange_t *ex, ngx_buf_t *b)
{
    size_t  size;

    if (!ngx_buf_in_memory(b)) {
        return NGX_OK;
    }

    size = ngx_min((size_t) (b->last - b->pos),
                   ex->answer_max - ex->answer.len);

    if (size) {

        if (ex->answer.data == NULL) {
            ex->answer.data = ngx_pnalloc(r->pool, ex->answer_max);
            if (ex->answer.data == NULL) {
                return NGX_ERROR;
            }
        }

        ngx_memcpy(ex->answer.data + ex->answer.len, b->pos, size);
        ex->answer.len += size;
    }

    b->pos = b->last;

    return NGX_OK;
}


void
ngx_http_iothub_exchange_init(void)
{
    ngx_http_iothub_exchange_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_iothub_exchange_header_filter;

    ngx_http_iothub_exchange_next_body_filter = ngx_http_top_body_filter;
    ngx_http_top_body_filter = ngx_http_iothub_exchange_body_filter;
}
