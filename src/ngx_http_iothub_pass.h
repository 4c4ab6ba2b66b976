
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * pass: each iothub_pass when all of the configuration is known.  Finds its
 * hub, refuses what cannot work, and warns of what is probably wrong.
 */

#ifndef _NGX_HTTP_IOTHUB_PASS_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_PASS_H_INCLUDED_


#include "ngx_http_iothub_module.h"


/* Postconfiguration.  NGX_OK, or NGX_ERROR and it is said why. */

ngx_int_t ngx_http_iothub_pass_init(ngx_conf_t *cf,
    ngx_http_iothub_main_conf_t *imcf);


#endif /* _NGX_HTTP_IOTHUB_PASS_H_INCLUDED_ */
