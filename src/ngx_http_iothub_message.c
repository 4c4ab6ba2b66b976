
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_message.h"
#include "ngx_http_iothub_sas.h"
#include "ngx_http_iothub_webhook.h"


/* an answer to a message has no body, an error's is short */

#define NGX_HTTP_IOTHUB_MESSAGE_ANSWER  2048

#define NGX_HTTP_IOTHUB_MESSAGE_BLOCK   4096


static ngx_int_t ngx_http_iothub_message_slices(ngx_pool_t *pool,
    ngx_http_iothub_exchange_t *ex, ngx_http_iothub_message_t *message);
static ngx_chain_t *ngx_http_iothub_message_link(ngx_pool_t *pool,
    ngx_str_t *text);
static ngx_str_t *ngx_http_iothub_message_key(
    ngx_http_iothub_header_t *header);
static u_char *ngx_http_iothub_message_write(u_char *p,
    ngx_http_iothub_message_t *message);


static ngx_http_iothub_header_t  ngx_http_iothub_message_batch_headers[] = {
    { ngx_string("Content-Type"), ngx_string("content-type"),
      ngx_string("application/vnd.microsoft.iothub.json") }
};

static ngx_str_t  ngx_http_iothub_message_creation =
    ngx_string("iothub-creationtimeutc");
static ngx_str_t  ngx_http_iothub_message_batch_creation =
    ngx_string("iothub-app-iothub-creation-time-utc");

static ngx_str_t  ngx_http_iothub_message_post = ngx_string("POST");
static ngx_str_t  ngx_http_iothub_message_suffix =
    ngx_string("/messages/events");


size_t
ngx_http_iothub_message_size(ngx_http_iothub_message_t *message)
{
    size_t                     size;
    ngx_uint_t                 i;
    ngx_http_iothub_header_t  *h;

    static const size_t  app = sizeof("iothub-app-") - 1;

    size = message->body.len + message->slice.len;

    for (i = 0; i < message->nheaders; i++) {
        h = &message->headers[i];
        size += h->value.len;

        if (h->key.len > app
            && ngx_strncmp(h->lowcase.data, "iothub-app-", app) == 0)
        {
            size += h->key.len - app;
        }
    }

    message->blocks = size ? (size - 1) / NGX_HTTP_IOTHUB_MESSAGE_BLOCK + 1
                           : 1;

    return size;
}


ngx_int_t
ngx_http_iothub_message_send(ngx_pool_t *pool,
    ngx_http_iothub_exchange_t *ex, ngx_http_iothub_message_t *message)
{
    ex->endpoint = NGX_HTTP_IOTHUB_MESSAGES;
    ex->proxy = NGX_HTTP_IOTHUB_PROXY_MESSAGES;
    ex->method = NGX_HTTP_POST;
    ex->method_name = ngx_http_iothub_message_post;
    ex->headers = message->headers;
    ex->nheaders = message->nheaders;
    ex->answer_max = NGX_HTTP_IOTHUB_MESSAGE_ANSWER;

    if (ngx_http_iothub_message_uri(pool, ex->hub, &ex->device_id,
                                    &ngx_http_iothub_message_suffix, &ex->uri)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (message->slice.len == 0) {
        return ngx_http_iothub_message_body(pool, ex, &message->body);
    }

    return ngx_http_iothub_message_slices(pool, ex, message);
}


ngx_int_t
ngx_http_iothub_message_whole(ngx_pool_t *pool,
    ngx_http_iothub_message_t *message, ngx_str_t *text)
{
    u_char  *p;

    if (message->slice.len == 0) {
        *text = message->body;
        return NGX_OK;
    }

    text->len = message->body.len + message->slice.len;

    text->data = ngx_pnalloc(pool, text->len);
    if (text->data == NULL) {
        return NGX_ERROR;
    }

    p = ngx_cpymem(text->data, message->body.data, message->at);
    p = ngx_cpymem(p, message->slice.data, message->slice.len);
    ngx_memcpy(p, message->body.data + message->at,
               message->body.len - message->at);

    return NGX_OK;
}


size_t
ngx_http_iothub_message_batch_size(ngx_http_iothub_message_t *message)
{
    size_t      size;
    ngx_uint_t  i;

    size = sizeof("{\"body\":\"\",\"base64Encoded\":true,"
                  "\"properties\":{}},") - 1
           + ngx_base64_encoded_length(message->body.len);

    for (i = 0; i < message->nheaders; i++) {
        size += sizeof("\"\":\"\",") - 1
                + ngx_http_iothub_message_key(&message->headers[i])->len
                + ngx_http_iothub_json_escape(NULL,
                                              &message->headers[i].value);
    }

    return size;
}


/* within a batch, one property has another name than its header */

static ngx_str_t *
ngx_http_iothub_message_key(ngx_http_iothub_header_t *header)
{
    if (header->lowcase.len == ngx_http_iothub_message_creation.len
        && ngx_memcmp(header->lowcase.data,
                      ngx_http_iothub_message_creation.data,
                      header->lowcase.len)
           == 0)
    {
        return &ngx_http_iothub_message_batch_creation;
    }

    return &header->key;
}


ngx_int_t
ngx_http_iothub_message_batch(ngx_pool_t *pool,
    ngx_http_iothub_message_t **messages, ngx_uint_t n,
    ngx_http_iothub_message_t *batch)
{
    u_char      *p;
    size_t       size;
    ngx_uint_t   i;

    size = sizeof("[]") - 1;
    batch->blocks = 0;

    for (i = 0; i < n; i++) {
        size += ngx_http_iothub_message_batch_size(messages[i]);
        batch->blocks += messages[i]->blocks;
    }

    p = ngx_pnalloc(pool, size);
    if (p == NULL) {
        return NGX_ERROR;
    }

    batch->headers = ngx_http_iothub_message_batch_headers;
    batch->nheaders = 1;
    batch->body.data = p;

    *p++ = '[';

    for (i = 0; i < n; i++) {

        if (i) {
            *p++ = ',';
        }

        p = ngx_http_iothub_message_write(p, messages[i]);
    }

    *p++ = ']';

    batch->body.len = p - batch->body.data;

    return NGX_OK;
}


static u_char *
ngx_http_iothub_message_write(u_char *p, ngx_http_iothub_message_t *message)
{
    ngx_str_t   text, *key;
    ngx_uint_t  i;

    p = ngx_cpymem(p, "{\"body\":\"", sizeof("{\"body\":\"") - 1);

    text.data = p;
    ngx_encode_base64(&text, &message->body);
    p += text.len;

    p = ngx_cpymem(p, "\",\"base64Encoded\":true,\"properties\":{",
                   sizeof("\",\"base64Encoded\":true,\"properties\":{") - 1);

    for (i = 0; i < message->nheaders; i++) {

        key = ngx_http_iothub_message_key(&message->headers[i]);

        p = ngx_sprintf(p, "%s\"%V\":\"", i ? "," : "", key);
        p += ngx_http_iothub_json_escape(p, &message->headers[i].value);
        *p++ = '"';
    }

    *p++ = '}';
    *p++ = '}';

    return p;
}


ngx_int_t
ngx_http_iothub_message_uri(ngx_pool_t *pool, ngx_http_iothub_hub_t *hub,
    ngx_str_t *device_id, ngx_str_t *suffix, ngx_str_t *uri)
{
    u_char  *p;

    /* three times as long when each character is escaped */

    p = ngx_pnalloc(pool, sizeof("/devices/") - 1 + 3 * device_id->len
                          + suffix->len + hub->query.len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    uri->data = p;

    p = ngx_cpymem(p, "/devices/", sizeof("/devices/") - 1);
    p = ngx_http_iothub_sas_escape(p, device_id);
    p = ngx_cpymem(p, suffix->data, suffix->len);
    p = ngx_cpymem(p, hub->query.data, hub->query.len);

    uri->len = p - uri->data;

    return NGX_OK;
}


/* the body up to the slice, the slice, and the rest */

static ngx_int_t
ngx_http_iothub_message_slices(ngx_pool_t *pool,
    ngx_http_iothub_exchange_t *ex, ngx_http_iothub_message_t *message)
{
    ngx_str_t     texts[3];
    ngx_uint_t    i;
    ngx_chain_t  *cl, **last;

    cl = NULL;

    texts[0].data = message->body.data;
    texts[0].len = message->at;
    texts[1] = message->slice;
    texts[2].data = message->body.data + message->at;
    texts[2].len = message->body.len - message->at;

    last = &ex->body;

    for (i = 0; i < 3; i++) {

        cl = ngx_http_iothub_message_link(pool, &texts[i]);
        if (cl == NULL) {
            return NGX_ERROR;
        }

        *last = cl;
        last = &cl->next;
    }

    cl->buf->last_buf = 1;
    ex->body_size = message->body.len + message->slice.len;

    return NGX_OK;
}


ngx_int_t
ngx_http_iothub_message_body(ngx_pool_t *pool,
    ngx_http_iothub_exchange_t *ex, ngx_str_t *text)
{
    ngx_chain_t  *cl;

    cl = ngx_http_iothub_message_link(pool, text);
    if (cl == NULL) {
        return NGX_ERROR;
    }

    cl->buf->last_buf = 1;

    ex->body = cl;
    ex->body_size = text->len;

    return NGX_OK;
}


static ngx_chain_t *
ngx_http_iothub_message_link(ngx_pool_t *pool, ngx_str_t *text)
{
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    b = ngx_calloc_buf(pool);
    cl = ngx_alloc_chain_link(pool);

    if (b == NULL || cl == NULL) {
        return NULL;
    }

    /* to repeat a request, nginx goes back to start: it has to be pos */

    b->start = text->data;
    b->pos = text->data;
    b->last = text->data + text->len;
    b->end = b->last;
    b->memory = text->len ? 1 : 0;
    b->sync = text->len ? 0 : 1;

    cl->buf = b;
    cl->next = NULL;

    return cl;
}
