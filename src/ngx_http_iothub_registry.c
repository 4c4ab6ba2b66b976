
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_registry.h"
#include "ngx_http_iothub_message.h"


/* an identity is some 700 bytes; its status comes in the first half */

#define NGX_HTTP_IOTHUB_REGISTRY_ANSWER  4096


static ngx_str_t  ngx_http_iothub_registry_put = ngx_string("PUT");
static ngx_str_t  ngx_http_iothub_registry_get = ngx_string("GET");
static ngx_str_t  ngx_http_iothub_registry_no_suffix = ngx_null_string;


static ngx_http_iothub_header_t  ngx_http_iothub_registry_headers[] = {
    { ngx_string("Content-Type"),
      ngx_string("content-type"),
      ngx_string("application/json; charset=utf-8") }
};


ngx_int_t
ngx_http_iothub_registry_create(ngx_pool_t *pool,
    ngx_http_iothub_exchange_t *ex, ngx_uint_t first)
{
    u_char     *p;
    ngx_str_t   text;

    ex->endpoint = NGX_HTTP_IOTHUB_REGISTRY;
    ex->proxy = first ? NGX_HTTP_IOTHUB_PROXY_FIRST
                      : NGX_HTTP_IOTHUB_PROXY_REGISTRY;
    ex->method = NGX_HTTP_PUT;
    ex->method_name = ngx_http_iothub_registry_put;
    ex->headers = ngx_http_iothub_registry_headers;
    ex->nheaders = 1;
    ex->answer_max = NGX_HTTP_IOTHUB_REGISTRY_ANSWER;

    if (ngx_http_iothub_message_uri(pool, ex->hub, &ex->device_id,
                                    &ngx_http_iothub_registry_no_suffix,
                                    &ex->uri)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    /* no legal device id has a character that JSON escapes */

    text.len = sizeof("{\"deviceId\":\"\",}") - 1 + ex->device_id.len
               + ex->hub->identity.len;
    text.data = ngx_pnalloc(pool, text.len);
    if (text.data == NULL) {
        return NGX_ERROR;
    }

    p = ngx_sprintf(text.data, "{\"deviceId\":\"%V\",%V}", &ex->device_id,
                    &ex->hub->identity);
    text.len = p - text.data;

    return ngx_http_iothub_message_body(pool, ex, &text);
}


ngx_int_t
ngx_http_iothub_registry_ask(ngx_pool_t *pool,
    ngx_http_iothub_exchange_t *ex)
{
    ex->endpoint = NGX_HTTP_IOTHUB_REGISTRY;
    ex->proxy = NGX_HTTP_IOTHUB_PROXY_REGISTRY;
    ex->method = NGX_HTTP_GET;
    ex->method_name = ngx_http_iothub_registry_get;
    ex->headers = NULL;
    ex->nheaders = 0;
    ex->body = NULL;
    ex->body_size = 0;
    ex->answer_max = NGX_HTTP_IOTHUB_REGISTRY_ANSWER;

    return ngx_http_iothub_message_uri(pool, ex->hub, &ex->device_id,
                                       &ngx_http_iothub_registry_no_suffix,
                                       &ex->uri);
}
