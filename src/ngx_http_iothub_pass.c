
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_pass.h"
#include "ngx_http_iothub_handler.h"


static ngx_int_t ngx_http_iothub_pass_find_hub(ngx_conf_t *cf,
    ngx_http_iothub_main_conf_t *imcf, ngx_http_iothub_pass_t *pass);
static ngx_int_t ngx_http_iothub_pass_alone(ngx_conf_t *cf,
    ngx_http_iothub_pass_t *pass);
static void ngx_http_iothub_pass_source(ngx_http_iothub_main_conf_t *imcf,
    ngx_http_iothub_loc_conf_t *conf);
static void ngx_http_iothub_pass_warn_open(ngx_conf_t *cf,
    ngx_http_iothub_main_conf_t *imcf, ngx_http_iothub_pass_t *pass);
static void ngx_http_iothub_pass_warn_sender(ngx_conf_t *cf,
    ngx_http_iothub_pass_t *pass);


ngx_int_t
ngx_http_iothub_pass_init(ngx_conf_t *cf, ngx_http_iothub_main_conf_t *imcf)
{
    ngx_uint_t               i;
    ngx_http_iothub_pass_t  *pass;

    pass = imcf->passes.elts;

    for (i = 0; i < imcf->passes.nelts; i++) {

        if (ngx_http_iothub_pass_find_hub(cf, imcf, &pass[i]) != NGX_OK
            || ngx_http_iothub_pass_alone(cf, &pass[i]) != NGX_OK)
        {
            return NGX_ERROR;
        }

        if (ngx_http_iothub_target_check(cf, pass[i].conf->target,
                                         pass[i].server, pass[i].file,
                                         pass[i].line)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        ngx_http_iothub_pass_warn_open(cf, imcf, &pass[i]);
        ngx_http_iothub_pass_warn_sender(cf, &pass[i]);
        ngx_http_iothub_pass_source(imcf, pass[i].conf);
    }

    return NGX_OK;
}


/* it may be declared after it is used */

static ngx_int_t
ngx_http_iothub_pass_find_hub(ngx_conf_t *cf,
    ngx_http_iothub_main_conf_t *imcf, ngx_http_iothub_pass_t *pass)
{
    if (pass->name.len) {
        pass->conf->hub = ngx_http_iothub_hub_find(&imcf->hubs, &pass->name);

        if (pass->conf->hub == NULL) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "unknown hub \"%V\" in iothub_pass, declare it "
                          "with \"iothub %V { ... }\" in %s:%ui",
                          &pass->name, &pass->name, pass->file, pass->line);
            return NGX_ERROR;
        }

        return NGX_OK;
    }

    if (imcf->hubs.nelts == 0) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "iothub_pass without any hub, declare one with "
                      "\"iothub NAME { ... }\" in %s:%ui",
                      pass->file, pass->line);
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* of several content handlers nginx takes the last, and says nothing */

static ngx_int_t
ngx_http_iothub_pass_alone(ngx_conf_t *cf, ngx_http_iothub_pass_t *pass)
{
    if (pass->location->handler == ngx_http_iothub_handler) {
        return NGX_OK;
    }

    ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                  "iothub_pass without effect: another content handler, such "
                  "as proxy_pass, follows in the same location; move that "
                  "into a location of its own, and write "
                  "\"iothub_target\" to have it get the webhook, too, in "
                  "%s:%ui",
                  pass->file, pass->line);

    return NGX_ERROR;
}


/* of which sources a hub's webhooks are: their metrics start at zero */

static void
ngx_http_iothub_pass_source(ngx_http_iothub_main_conf_t *imcf,
    ngx_http_iothub_loc_conf_t *conf)
{
    ngx_uint_t               i, bit;
    ngx_http_iothub_hub_t  **hub;

    bit = (ngx_uint_t) 1 << conf->source->n;

    if (conf->hub) {
        conf->hub->sources |= bit;
        return;
    }

    imcf->sources |= bit;
    hub = imcf->hubs.elts;

    for (i = 0; i < imcf->hubs.nelts; i++) {
        hub[i]->sources |= bit;
    }
}


static void
ngx_http_iothub_pass_warn_open(ngx_conf_t *cf,
    ngx_http_iothub_main_conf_t *imcf, ngx_http_iothub_pass_t *pass)
{
    ngx_uint_t                  i, create;
    ngx_http_iothub_hub_t     **hub;
    ngx_http_complex_value_t   *cv;

    if (pass->conf->secret_set || pass->conf->signature) {
        return;
    }

    cv = pass->conf->create;

    if (cv && cv->lengths == NULL
        && (cv->value.len == 0
            || (cv->value.len == 1 && cv->value.data[0] == '0')))
    {
        return;
    }

    hub = imcf->hubs.elts;
    create = 0;

    for (i = 0; i < imcf->hubs.nelts; i++) {
        if ((pass->conf->hub == NULL || pass->conf->hub == hub[i])
            && hub[i]->registering != NGX_HTTP_IOTHUB_REGISTER_OFF)
        {
            create = 1;
        }
    }

    if (create) {
        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "iothub_pass lets anybody who reaches it create "
                      "devices: add iothub_secret or iothub_signature, or "
                      "\"iothub_secret off\" if senders are checked "
                      "otherwise, in %s:%ui",
                      pass->file, pass->line);
    }
}


/* what the sender does not wait for, or sends and nginx refuses */

static void
ngx_http_iothub_pass_warn_sender(ngx_conf_t *cf, ngx_http_iothub_pass_t *pass)
{
    ngx_http_core_loc_conf_t  *clcf;
    ngx_http_iothub_source_t  *source;

    clcf = pass->location;
    source = pass->conf->source;

    if (source->patience && pass->conf->deadline >= source->patience) {
        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "iothub_deadline is %M s, and \"%V\" gives up after "
                      "%M s: it takes what is delivered later for failed; "
                      "write less, in %s:%ui",
                      pass->conf->deadline / 1000, &source->name,
                      source->patience / 1000, pass->file, pass->line);
    }

    if (clcf->client_max_body_size
        && clcf->client_max_body_size < source->most)
    {
        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "client_max_body_size is %O, and \"%V\" sends up to "
                      "%O bytes: nginx answers 413 to the rest; write more, "
                      "in %s:%ui",
                      clcf->client_max_body_size, &source->name,
                      source->most, pass->file, pass->line);
    }
}
