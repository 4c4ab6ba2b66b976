
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * admit: iothub_secret and iothub_signature of a request.  What the sender
 * and signature rooms decide from bytes, with the request's headers and its
 * body, wherever that lies.
 *
 * Both functions return NGX_OK; NGX_DECLINED if the sender is not allowed,
 * which is logged at warn, with *detail for the answer; NGX_ERROR if there is
 * no memory, or the body cannot be read.
 */

#ifndef _NGX_HTTP_IOTHUB_ADMIT_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_ADMIT_H_INCLUDED_


#include "ngx_http_iothub_module.h"


/* What can be told before the body is read. */

ngx_int_t ngx_http_iothub_admit_head(ngx_http_request_t *r,
    ngx_http_iothub_loc_conf_t *conf, const char **detail);

/* What must be known before the body is parsed. */

ngx_int_t ngx_http_iothub_admit_body(ngx_http_request_t *r,
    ngx_http_iothub_loc_conf_t *conf, const char **detail);


#endif /* _NGX_HTTP_IOTHUB_ADMIT_H_INCLUDED_ */
