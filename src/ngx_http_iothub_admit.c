
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_admit.h"
#include "ngx_http_iothub_handler.h"
#include "ngx_http_iothub_sender.h"


/* of a body in a file, at once */

#define NGX_HTTP_IOTHUB_ADMIT_PART  65536


static ngx_int_t ngx_http_iothub_admit_secret(ngx_http_request_t *r,
    ngx_http_iothub_secret_t *secret);
static ngx_int_t ngx_http_iothub_admit_show(ngx_http_request_t *r,
    ngx_http_iothub_signature_t *signature,
    ngx_http_iothub_signature_shown_t *shown);
static void ngx_http_iothub_admit_value(ngx_http_iothub_signature_t *signature,
    ngx_http_iothub_signature_shown_t *shown, ngx_table_elt_t *h);
static void ngx_http_iothub_admit_log(ngx_http_request_t *r,
    ngx_http_iothub_signature_shown_t *shown);
static ngx_int_t ngx_http_iothub_admit_chain(ngx_http_request_t *r,
    ngx_http_iothub_signature_t *signature,
    ngx_http_iothub_signature_shown_t *shown);
static ngx_int_t ngx_http_iothub_admit_file(ngx_http_request_t *r,
    ngx_http_iothub_signature_t *signature,
    ngx_http_iothub_signature_shown_t *shown, ngx_buf_t *b);


static const char  ngx_http_iothub_admit_secret_detail[] =
    "the secret is missing or wrong";

static const char  ngx_http_iothub_admit_signature_detail[] =
    "the signature is missing, wrong or too old";


ngx_int_t
ngx_http_iothub_admit_head(ngx_http_request_t *r,
    ngx_http_iothub_loc_conf_t *conf, const char **detail)
{
    ngx_http_iothub_signature_shown_t  shown;

    if (conf->secret
        && ngx_http_iothub_admit_secret(r, conf->secret) != NGX_OK)
    {
        *detail = ngx_http_iothub_admit_secret_detail;
        return NGX_DECLINED;
    }

    if (conf->signature
        && ngx_http_iothub_admit_show(r, conf->signature, &shown) != NGX_OK)
    {
        ngx_http_iothub_admit_log(r, &shown);

        *detail = ngx_http_iothub_admit_signature_detail;
        return NGX_DECLINED;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_admit_secret(ngx_http_request_t *r,
    ngx_http_iothub_secret_t *secret)
{
    ngx_str_t  *value;

    value = ngx_http_iothub_header_in(r, &secret->header);

    if (ngx_http_iothub_sender_check_secret(&secret->secrets, value)
        != NGX_OK)
    {
        ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                      "iothub webhook unauthorized: %s header \"%V\"",
                      value ? "wrong value of" : "no", &secret->header);

        return NGX_DECLINED;
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_iothub_admit_body(ngx_http_request_t *r,
    ngx_http_iothub_loc_conf_t *conf, const char **detail)
{
    ngx_int_t                           rc;
    ngx_http_iothub_signature_t        *signature;
    ngx_http_iothub_signature_shown_t   shown;

    signature = conf->signature;

    if (signature == NULL) {
        return NGX_OK;
    }

    rc = ngx_http_iothub_admit_show(r, signature, &shown);

    if (rc == NGX_OK) {
        rc = ngx_http_iothub_signature_begin(r->pool, signature, &shown);

        if (rc == NGX_OK) {
            rc = ngx_http_iothub_admit_chain(r, signature, &shown);
        }

        if (rc == NGX_OK) {
            rc = ngx_http_iothub_signature_check(r->pool, signature, &shown);
        }

        ngx_http_iothub_signature_end(signature, &shown);
    }

    if (rc == NGX_DECLINED) {
        ngx_http_iothub_admit_log(r, &shown);

        *detail = ngx_http_iothub_admit_signature_detail;
    }

    return rc;
}


static ngx_int_t
ngx_http_iothub_admit_show(ngx_http_request_t *r,
    ngx_http_iothub_signature_t *signature,
    ngx_http_iothub_signature_shown_t *shown)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    ngx_memzero(shown, sizeof(ngx_http_iothub_signature_shown_t));

    for (part = &r->headers_in.headers.part; part; part = part->next) {

        h = part->elts;

        for (i = 0; i < part->nelts; i++) {
            ngx_http_iothub_admit_value(signature, shown, &h[i]);
        }
    }

    if (shown->fault) {
        return NGX_DECLINED;
    }

    /* the time counts when the webhook came, however slow its body is */

    return ngx_http_iothub_signature_show(signature, shown, r->start_sec);
}


static void
ngx_http_iothub_admit_value(ngx_http_iothub_signature_t *signature,
    ngx_http_iothub_signature_shown_t *shown, ngx_table_elt_t *h)
{
    ngx_str_t   *name;
    ngx_uint_t   i;

    for (i = 0; i < NGX_HTTP_IOTHUB_SIGNATURE_HEADERS; i++) {

        name = &signature->headers[i];

        if (name->len == 0 || h->key.len != name->len
            || ngx_memcmp(h->lowcase_key, name->data, name->len) != 0)
        {
            continue;
        }

        /* whoever reads it later might take the other one */

        if (shown->values[i]) {
            shown->fault = "more than one";
            shown->header = name;
        }

        shown->values[i] = &h->value;
    }
}


static void
ngx_http_iothub_admit_log(ngx_http_request_t *r,
    ngx_http_iothub_signature_shown_t *shown)
{
    if (shown->off == 0) {
        ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                      "iothub webhook unauthorized: %s header \"%V\"",
                      shown->fault, shown->header);
        return;
    }

    ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                  "iothub webhook unauthorized: time %T s %s in header "
                  "\"%V\"",
                  shown->off > 0 ? shown->off : -shown->off,
                  shown->off > 0 ? "old" : "ahead", shown->header);
}


static ngx_int_t
ngx_http_iothub_admit_chain(ngx_http_request_t *r,
    ngx_http_iothub_signature_t *signature,
    ngx_http_iothub_signature_shown_t *shown)
{
    ngx_int_t     rc;
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    cl = r->request_body ? r->request_body->bufs : NULL;

    for ( /* void */ ; cl; cl = cl->next) {

        b = cl->buf;

        rc = (!b->in_file || ngx_buf_in_memory(b))
             ? ngx_http_iothub_signature_update(signature, shown, b->pos,
                                                b->last - b->pos)
             : ngx_http_iothub_admit_file(r, signature, shown, b);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_admit_file(ngx_http_request_t *r,
    ngx_http_iothub_signature_t *signature,
    ngx_http_iothub_signature_shown_t *shown, ngx_buf_t *b)
{
    off_t      offset;
    size_t     size;
    u_char    *part;
    ngx_int_t  rc;

    part = ngx_palloc(r->pool, NGX_HTTP_IOTHUB_ADMIT_PART);
    if (part == NULL) {
        return NGX_ERROR;
    }

    rc = NGX_OK;

    for (offset = b->file_pos; offset < b->file_last; offset += size) {

        size = (size_t) ngx_min(b->file_last - offset,
                                NGX_HTTP_IOTHUB_ADMIT_PART);

        if (ngx_read_file(b->file, part, size, offset) != (ssize_t) size) {
            ngx_log_error(NGX_LOG_CRIT, r->connection->log, 0,
                          "iothub could not read the webhook's body from "
                          "\"%V\"", &b->file->name);
            rc = NGX_ERROR;
            break;
        }

        rc = ngx_http_iothub_signature_update(signature, shown, part, size);

        if (rc != NGX_OK) {
            break;
        }
    }

    (void) ngx_pfree(r->pool, part);

    return rc;
}
