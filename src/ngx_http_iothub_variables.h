
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * variables: what nginx.conf and the log see of a webhook, its event and the
 * outcome.
 */

#ifndef _NGX_HTTP_IOTHUB_VARIABLES_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_VARIABLES_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>


/* Adds the variables, in preconfiguration. */

ngx_int_t ngx_http_iothub_variables_add(ngx_conf_t *cf);

/*
 * In postconfiguration: those that the configuration uses are those that nginx
 * may have to forget.  NGX_ERROR: no memory.
 */

ngx_int_t ngx_http_iothub_variables_init(ngx_conf_t *cf);

/*
 * Makes nginx evaluate the module's variables again, which it remembers in
 * a request: called when the webhook was parsed and when it was changed.
 */

void ngx_http_iothub_variables_reset(ngx_http_request_t *r);

/*
 * Copies what nginx remembers of all variables, into the pool, and brings it
 * back.  NULL: no memory.
 */

ngx_http_variable_value_t *ngx_http_iothub_variables_save(
    ngx_http_request_t *r);
void ngx_http_iothub_variables_restore(ngx_http_request_t *r,
    ngx_http_variable_value_t *saved);

/*
 * Before the target: what has got a value since then, with control
 * characters in it, goes back to what it was.  It may be a map of a verbatim
 * field, which the target's location would put into a header; evaluated
 * again, its fields are escaped.
 */

void ngx_http_iothub_variables_escape(ngx_http_request_t *r,
    ngx_http_variable_value_t *saved);

/*
 * Sets a variable to a text, which it points to; safe: to its JSON escaped
 * text, from the pool, if it holds control characters, so that in an
 * add_header it makes no header of its own.  NGX_OK or NGX_ERROR (no memory).
 */

ngx_int_t ngx_http_iothub_variables_set(ngx_http_variable_value_t *v,
    ngx_str_t *value);
ngx_int_t ngx_http_iothub_variables_set_safe(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, ngx_str_t *value);


#endif /* _NGX_HTTP_IOTHUB_VARIABLES_H_INCLUDED_ */
