
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * template: the value of iothub_message.  A text with nginx variables, each
 * inserted so that a JSON text stays one: inside quotes as the escaped text
 * of a string, outside of them as the JSON it is, else as a string.
 */

#ifndef _NGX_HTTP_IOTHUB_TEMPLATE_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_TEMPLATE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>


typedef struct {
    ngx_array_t   parts;
    u_char       *file;       /* where it is configured, set by the caller */
    ngx_uint_t    line;
} ngx_http_iothub_template_t;


/*
 * Compiles a template.  With escape off, variables are inserted as they are.
 * NULL: no memory, or a variable that nginx does not take, logged.
 */

ngx_http_iothub_template_t *ngx_http_iothub_template_compile(ngx_conf_t *cf,
    ngx_str_t *text, ngx_uint_t escape);

/*
 * May the text become JSON, for some values of its variables?  1 or 0, which
 * is also said of texts that only strange values make JSON; NGX_ERROR: no
 * memory.
 */

ngx_int_t ngx_http_iothub_template_may_be_json(ngx_pool_t *pool,
    ngx_http_iothub_template_t *template);

/*
 * Makes the text for a request, in its pool.  NGX_OK or NGX_ERROR.
 */

ngx_int_t ngx_http_iothub_template_eval(ngx_http_request_t *r,
    ngx_http_iothub_template_t *template, ngx_str_t *text);


#endif /* _NGX_HTTP_IOTHUB_TEMPLATE_H_INCLUDED_ */
