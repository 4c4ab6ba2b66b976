
/* Copyright (C) the ngx_http_iothub_module authors */


/*
 * format: what a webhook's body is, by its Content-Type.
 *
 * Pure: bytes in, values out.
 */


#ifndef _NGX_HTTP_IOTHUB_FORMAT_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_FORMAT_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


typedef enum {
    NGX_HTTP_IOTHUB_NO_BODY = 0,
    NGX_HTTP_IOTHUB_JSON,
    NGX_HTTP_IOTHUB_FORM,
    NGX_HTTP_IOTHUB_RAW          /* any bytes, nothing is checked */
} ngx_http_iothub_format_e;


/*
 * Says from the Content-Type (NULL or empty: there is none) in which format
 * the body is.  application/json, text/json and anything whose subtype ends
 * in +json are JSON, application/x-www-form-urlencoded is FORM, parameters
 * are allowed.  Without a Content-Type, an empty body is NO_BODY, one that
 * starts with { or [ is JSON, and any other is FORM, Particle's default.
 * RAW is never chosen here.
 *
 * NGX_OK; NGX_DECLINED if the type is another one, is no media type, or has
 * a charset that is neither utf-8 nor us-ascii.
 */

ngx_int_t ngx_http_iothub_format_of(ngx_str_t *content_type,
    ngx_str_t *body, ngx_http_iothub_format_e *format);


#endif /* _NGX_HTTP_IOTHUB_FORMAT_H_INCLUDED_ */
