
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_message.h"


/* an answer to a message has no body, an error's is short */

#define NGX_HTTP_IOTHUB_MESSAGE_ANSWER  2048


static ngx_str_t  ngx_http_iothub_message_post = ngx_string("POST");
static ngx_str_t  ngx_http_iothub_message_suffix =
    ngx_string("/messages/events");


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

    return ngx_http_iothub_message_body(pool, ex, &message->body);
}


ngx_int_t
ngx_http_iothub_message_uri(ngx_pool_t *pool, ngx_http_iothub_hub_t *hub,
    ngx_str_t *device_id, ngx_str_t *suffix, ngx_str_t *uri)
{
    u_char  *p;

    p = ngx_pnalloc(pool, sizeof("/devices/") - 1
                          + ngx_http_iothub_sas_escaped_size(device_id)
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


ngx_int_t
ngx_http_iothub_message_body(ngx_pool_t *pool,
    ngx_http_iothub_exchange_t *ex, ngx_str_t *text)
{
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    b = ngx_calloc_buf(pool);
    cl = ngx_alloc_chain_link(pool);

    if (b == NULL || cl == NULL) {
        return NGX_ERROR;
    }

    /* to repeat a request, nginx goes back to start: it has to be pos */

    b->start = text->data;
    b->pos = text->data;
    b->last = text->data + text->len;
    b->end = b->last;
    b->memory = text->len ? 1 : 0;
    b->sync = text->len ? 0 : 1;
    b->last_buf = 1;

    cl->buf = b;
    cl->next = NULL;

    ex->body = cl;
    ex->body_size = text->len;

    return NGX_OK;
}
