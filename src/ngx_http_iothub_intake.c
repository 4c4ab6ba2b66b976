
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_intake.h"
#include "ngx_http_iothub_variables.h"


static ngx_int_t ngx_http_iothub_intake_parse(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx, ngx_http_iothub_format_e format,
    ngx_str_t *body);
static ngx_uint_t ngx_http_iothub_is_envelope(ngx_http_iothub_ctx_t *ctx,
    ngx_str_t *type);
static ngx_int_t ngx_http_iothub_body(ngx_http_request_t *r,
    ngx_str_t *body);
static void ngx_http_iothub_body_join(ngx_http_request_body_t *rb);
static ngx_int_t ngx_http_iothub_body_read(ngx_http_request_t *r,
    ngx_buf_t *b, u_char *p);


ngx_int_t
ngx_http_iothub_intake(ngx_http_request_t *r, ngx_http_iothub_ctx_t *ctx)
{
    ngx_int_t                   rc;
    ngx_str_t                   body, *type;
    ngx_http_iothub_format_e    format;
    ngx_http_iothub_webhook_t  *wh;

    wh = &ctx->webhook;

    if (ngx_http_iothub_body(r, &body) != NGX_OK) {
        return NGX_ERROR;
    }

    type = r->headers_in.content_type ? &r->headers_in.content_type->value
                                      : NULL;

    rc = ngx_http_iothub_format_of(type, &body, &format);

    if (body.len == 0 && r->method == NGX_HTTP_GET) {
        format = NGX_HTTP_IOTHUB_NO_BODY;
        rc = NGX_OK;
    }

    if ((ctx->conf->source->flags & NGX_HTTP_IOTHUB_SOURCE_ANY_TYPE)
        && !ngx_http_iothub_is_envelope(ctx, type)
        && (rc != NGX_OK
            || (type == NULL && format != NGX_HTTP_IOTHUB_JSON)))
    {
        format = NGX_HTTP_IOTHUB_RAW;
        rc = NGX_OK;
    }

    if (rc != NGX_OK) {
        return ngx_http_iothub_result(ctx, NGX_HTTP_IOTHUB_BAD_MEDIA_TYPE,
                                      "send application/json or "
                                      "application/x-www-form-urlencoded, "
                                      "in UTF-8");
    }

    wh->header = ngx_http_iothub_header_in;
    wh->header_data = r;

    rc = ngx_http_iothub_intake_parse(r, ctx, format, &body);

    if (rc == NGX_DECLINED) {
        return ngx_http_iothub_result(ctx, NGX_HTTP_IOTHUB_MALFORMED,
                                      wh->reason);
    }

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    ctx->parsed = 1;

    /* parsing began with an empty webhook */

    wh->header = ngx_http_iothub_header_in;
    wh->header_data = r;

    /* what was looked up before the body was here is looked up again */

    ngx_http_iothub_variables_reset(r);

    return NGX_OK;
}


/*
 * Where the body is data alone, it may be any JSON.  That of a CloudEvent in
 * binary mode is no more than that, whatever its type: it is not looked into.
 */

static ngx_int_t
ngx_http_iothub_intake_parse(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx, ngx_http_iothub_format_e format,
    ngx_str_t *body)
{
    ngx_int_t                   rc;
    ngx_str_t                   text;
    ngx_uint_t                  binary, flags;
    ngx_http_iothub_webhook_t  *wh;

    wh = &ctx->webhook;
    binary = ngx_http_iothub_source_by_header(ctx->conf->source, wh);
    flags = ctx->conf->source->flags & (NGX_HTTP_IOTHUB_SOURCE_ANY_TYPE
                                        |NGX_HTTP_IOTHUB_SOURCE_ENVELOPE);

    if (format == NGX_HTTP_IOTHUB_JSON && (body->len || !binary)) {

        rc = ngx_http_iothub_webhook_parse(r->pool, wh, format, body,
                                           &r->args);
        if (rc != NGX_DECLINED
            || (!binary && flags != NGX_HTTP_IOTHUB_SOURCE_ANY_TYPE))
        {
            return rc;
        }

        /* no object, and no array: a number, a string */

        rc = ngx_http_iothub_webhook_embed(body, &text);

        if (rc != NGX_OK) {
            return rc;
        }

        ctx->scalar = 1;
        format = NGX_HTTP_IOTHUB_RAW;
    }

    return ngx_http_iothub_webhook_parse(r->pool, wh,
                                         binary ? NGX_HTTP_IOTHUB_RAW : format,
                                         body, &r->args);
}


/* a CloudEvent that is all in the body, in whatever format: not just data */

static ngx_uint_t
ngx_http_iothub_is_envelope(ngx_http_iothub_ctx_t *ctx, ngx_str_t *type)
{
    static ngx_str_t  start = ngx_string("application/cloudevents");

    return (ctx->conf->source->flags & NGX_HTTP_IOTHUB_SOURCE_ENVELOPE)
           && type && type->len >= start.len
           && ngx_strncasecmp(type->data, start.data, start.len) == 0;
}


static ngx_int_t
ngx_http_iothub_body(ngx_http_request_t *r, ngx_str_t *body)
{
    u_char       *p;
    size_t        len;
    ngx_chain_t  *cl;

    ngx_str_null(body);

    if (r->request_body == NULL || r->request_body->bufs == NULL) {
        return NGX_OK;
    }

    /* who has a part in it, such as mirror, may be sending it already */

    if (r == r->main && !r->preserve_body) {
        ngx_http_iothub_body_join(r->request_body);
    }

    cl = r->request_body->bufs;

    if (cl->next == NULL && !cl->buf->in_file) {
        body->data = cl->buf->pos;
        body->len = cl->buf->last - cl->buf->pos;
        return NGX_OK;
    }

    /* several buffers, a file, or both */

    len = 0;

    for ( /* void */ ; cl; cl = cl->next) {
        len += ngx_buf_size(cl->buf);
    }

    body->data = ngx_pnalloc(r->pool, len);
    if (body->data == NULL) {
        return NGX_ERROR;
    }

    body->len = len;

    for (p = body->data, cl = r->request_body->bufs; cl; cl = cl->next) {

        if (ngx_http_iothub_body_read(r, cl->buf, p) != NGX_OK) {
            return NGX_ERROR;
        }

        p += ngx_buf_size(cl->buf);
    }

    return NGX_OK;
}


/*
 * Each piece that nginx has read is a buffer; but for the first, which may have
 * come together with the head, they lie one behind the other, and where a body
 * is to be in one buffer, there is room for the first, too.
 */

static void
ngx_http_iothub_body_join(ngx_http_request_body_t *rb)
{
    u_char       *last;
    size_t        size;
    ngx_buf_t    *first;
    ngx_chain_t  *cl, *rest;

    rest = rb->bufs;

    if (rb->buf == NULL || rest->next == NULL) {
        return;
    }

    first = (rest->buf->pos == rb->buf->start) ? NULL : rest->buf;

    if (first) {
        rest = rest->next;
    }

    last = rb->buf->start;

    for (cl = rest; cl; cl = cl->next) {

        if (cl->buf->in_file || cl->buf->pos != last) {
            return;
        }

        last = cl->buf->last;
    }

    if (first) {
        size = ngx_buf_size(first);

        if (first->in_file || (size_t) (rb->buf->end - last) < size) {
            return;
        }

        ngx_memmove(rb->buf->start + size, rb->buf->start,
                    last - rb->buf->start);
        ngx_memcpy(rb->buf->start, first->pos, size);
        last += size;
    }

    rest->buf->last = last;
    rest->buf->last_buf = 1;
    rest->next = NULL;
    rb->bufs = rest;
}


static ngx_int_t
ngx_http_iothub_body_read(ngx_http_request_t *r, ngx_buf_t *b, u_char *p)
{
    size_t   size;
    ssize_t  n;

    size = ngx_buf_size(b);

    if (!b->in_file || ngx_buf_in_memory(b)) {
        ngx_memcpy(p, b->pos, size);
        return NGX_OK;
    }

    n = ngx_read_file(b->file, p, size, b->file_pos);

    if (n != (ssize_t) size) {
        ngx_log_error(NGX_LOG_CRIT, r->connection->log, 0,
                      "iothub could not read the webhook's body from \"%V\"",
                      &b->file->name);
        return NGX_ERROR;
    }

    return NGX_OK;
}
