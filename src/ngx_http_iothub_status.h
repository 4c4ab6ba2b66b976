
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * status: the content handler of iothub_status.  State and counters of all
 * hubs, what is known of a device, and whether a hub is usable.
 */

#ifndef _NGX_HTTP_IOTHUB_STATUS_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_STATUS_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>


/* The iothub_status directive: conf is the module's location configuration. */

char *ngx_http_iothub_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);


#endif /* _NGX_HTTP_IOTHUB_STATUS_H_INCLUDED_ */
