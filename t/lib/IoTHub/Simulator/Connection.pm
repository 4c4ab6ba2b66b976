# Copyright (C) the ngx_http_iothub_module authors

# One connection: TLS, requests in, answers out, and the faults that show on
# the wire.  Nothing here waits: a connection that hangs costs a descriptor.

package IoTHub::Simulator::Connection;

use v5.36;
use strict;
use warnings;

use IO::Socket::SSL ();
use Socket qw(MSG_PEEK SOL_SOCKET SO_LINGER);
use Time::HiRes qw(time);

use IoTHub::Simulator::Request qw(parse_head read_body);

use constant {
    HEAD_MAX     => 16 * 1024,
    BUFFER_MAX   => 8 * 1024 * 1024,
    READ_SIZE    => 64 * 1024,
    DRAIN_SECONDS => 2,
};

my %REASON = (
    100 => 'Continue', 102 => 'Processing', 103 => 'Early Hints',
    200 => 'OK', 201 => 'Created', 202 => 'Accepted', 204 => 'No Content',
    400 => 'Bad Request', 401 => 'Unauthorized', 403 => 'Forbidden',
    404 => 'Not Found', 405 => 'Method Not Allowed',
    408 => 'Request Timeout', 409 => 'Conflict', 411 => 'Length Required',
    412 => 'Precondition Failed', 413 => 'Request Entity Too Large',
    415 => 'Unsupported Media Type', 417 => 'Expectation Failed',
    429 => 'Too Many Requests', 500 => 'Internal Server Error',
    501 => 'Not Implemented', 502 => 'Bad Gateway',
    503 => 'Service Unavailable', 504 => 'Gateway Timeout',
);


# phase: what the next readable event is for
#   peek       is it TLS?
#   handshake
#   head, body
#   answer     a request is being answered; what comes is kept for later
#   hung       the answer never comes; what comes is dropped
#   drain      closed by us, waiting for the client to close

sub new($class, %arg) {
    my $self = bless {
        %arg,                       # server loop socket id
        fd    => fileno($arg{socket}),
        in    => '',
        out   => '',
        reqn  => 0,
        phase => $arg{server}{tls_context} ? 'peek' : 'head',
        active_at => time,
    }, $class;

    $self->{loop}->add($self->{fd}, $self);
    $self->{loop}->want_read($self->{fd}, 1);
    return $self;
}


sub on_readable($self) {
    return $self->peek if $self->{phase} eq 'peek';
    return $self->handshake if $self->{phase} eq 'handshake';

    $self->{active_at} = time;
    my $end = $self->fill;
    return if $self->{closed};

    if ($self->{phase} eq 'drain' || $self->{phase} eq 'hung') {
        $self->{in} = '';
    } else {
        $self->process;
    }

    # who does not wait for the answer does not get it
    $self->close_now if $end && !$self->{closed};
    return;
}


sub on_writable($self) {
    return $self->handshake if $self->{phase} eq 'handshake';
    $self->flush;
    return;
}


sub peek($self) {
    my $byte = '';
    defined recv $self->{socket}, $byte, 1, MSG_PEEK or return;
    return $self->close_now if $byte eq '';

    if (ord $byte != 0x16) {
        $self->{plain_on_tls} = 1;
        $self->{phase}        = 'head';
        return;
    }

    IO::Socket::SSL->start_SSL($self->{socket},
        SSL_server         => 1,
        SSL_startHandshake => 0,
        SSL_reuse_ctx      => $self->{server}{tls_context},
    ) or return $self->close_now;

    $self->{tls}   = 1;
    $self->{phase} = 'handshake';
    return $self->handshake;
}


sub handshake($self) {
    my ($loop, $fd) = @$self{qw(loop fd)};

    if ($self->{socket}->accept_SSL) {
        $loop->want_write($fd, 0);
        $self->{sni}     = $self->{socket}->get_servername;
        $self->{version} = $self->{socket}->get_sslversion;
        $self->{phase}   = 'head';
        return $self->on_readable if $self->{socket}->pending;
        return;
    }

    my $reason = $IO::Socket::SSL::SSL_ERROR;
    if ($reason == IO::Socket::SSL::SSL_WANT_READ()) {
        $loop->want_write($fd, 0);
    } elsif ($reason == IO::Socket::SSL::SSL_WANT_WRITE()) {
        $loop->want_write($fd, 1);
    } else {
        # the socket is a plain one again
        $self->{tls} = 0;
        $self->close_now;
    }
    return;
}


# Reads what there is; returns 1 at the end of the connection.

sub fill($self) {
    my $socket = $self->{socket};

    while (1) {
        my $got = $self->{tls}
            ? $socket->sysread($self->{in}, READ_SIZE, length $self->{in})
            : sysread $socket, $self->{in}, READ_SIZE, length $self->{in};

        if (!defined $got) {
            return 0 if $!{EAGAIN} || $!{EWOULDBLOCK} || $!{EINTR};
            $self->close_now;
            return 1;
        }
        return 1 if $got == 0;

        if (length $self->{in} > BUFFER_MAX) {
            $self->close_now;
            return 1;
        }
        return 0 if !$self->{tls} || !$socket->pending;
    }
}


sub process($self) {
    while (!$self->{closed}) {
        if ($self->{phase} eq 'head') {
            $self->take_head or return;
        } elsif ($self->{phase} eq 'body') {
            $self->take_body or return;
        } else {
            return;
        }
    }
    return;
}


sub take_head($self) {
    $self->{in} =~ s/^(?:\r\n)+//;
    my $end = index $self->{in}, "\r\n\r\n";

    if ($end < 0 || $end > HEAD_MAX) {
        return 0 if length $self->{in} <= HEAD_MAX;
        my ($request) = parse_head('');
        return $self->refuse($request, 400, 'Bad Request - Request Too Long');
    }

    my $head = substr $self->{in}, 0, $end;
    substr $self->{in}, 0, $end + 4, '';

    my ($request, $wrong) = parse_head($head);
    $self->{request} = $request;
    return $self->refuse($request, @$wrong) if $wrong;

    $self->{control} //= $request->{path} =~ m{^/simulator/} ? 1 : 0;
    $request->{control} = $request->{path} =~ m{^/simulator/};
    $self->name_request($request);

    unless ($request->{control}) {
        return $self->refuse($request, 400, 'Bad Request - Invalid Hostname')
            unless $self->{server}{hub}->knows_host(
                $request->{headers}{host} // '');
        return $self->refuse($request, 403, 'Forbidden - TLS Required')
            if $self->{plain_on_tls};

        $self->{server}{hub}->begin($request);
        if ($request->{fault} && ($request->{fault}{close} // '')
            eq 'request')
        {
            $self->exchange;
            return 0;
        }
    }

    $self->{phase} = 'body';
    $self->write("HTTP/1.1 100 Continue\r\n\r\n")
        if $request->{expects} && $self->{in} eq '';
    return 1;
}


sub name_request($self, $request) {
    @$request{qw(conn reqn sni tls)} = ($self->{id}, ++$self->{reqn},
        @$self{qw(sni version)});
    return;
}


sub take_body($self) {
    my $request = $self->{request};
    my $whole   = read_body($request, \$self->{in});

    return $self->refuse($request, 400, 'Bad Request')
        unless defined $whole;
    return 0 unless $whole;

    if ($request->{control}) {
        $self->{phase} = 'answer';
        $self->{server}{control}->call($self, $request);
    } else {
        $self->exchange;
    }
    return 1;
}


sub refuse($self, $request, $status, $title) {
    $self->name_request($request) unless $request->{conn};
    $self->{request} = $request;
    $self->{phase}   = 'answer';
    $self->send_answer(
        $self->{server}{hub}->refuse_raw($request, $status, $title), {});
    return 0;
}


sub exchange($self) {
    my $request = $self->{request};
    my $rule    = $request->{fault} // {};

    $self->{phase} = 'answer';
    my $answer = $self->{server}{hub}->finish($request);

    $self->write("HTTP/1.1 $rule->{interim} $REASON{ $rule->{interim} }"
        . "\r\n\r\n") if $rule->{interim};

    if ($rule->{delay}) {
        $self->{timer} = $self->{loop}->after($rule->{delay} / 1000,
            sub { $self->send_answer($answer, $rule) });
    } else {
        $self->send_answer($answer, $rule);
    }
    return;
}


# What of the answer is sent, and what comes after it.

sub send_answer($self, $answer, $rule) {
    return if $self->{closed};

    my $close = $rule->{close} // '';
    my $bytes = '';
    my $then  = 'next_request';

    if (defined $rule->{raw}) {
        $bytes = $rule->{raw};
        utf8::encode($bytes) unless utf8::downgrade($bytes, 1);
        $then = 'close_after_drain' unless $rule->{keep};
    } elsif (!$rule->{hang} && !$rule->{reset} || $close eq 'middle') {
        $bytes = $self->format_answer($answer);
        $then = 'close_after_drain' if $self->{last_answer};
    }

    if ($close) {
        $bytes = $close eq 'middle' ? first_half($bytes) : '';
        $self->{abrupt} = 1;
        $then = 'close_after_drain';
    }
    $then = 'reset' if $rule->{reset};
    $then = 'hang'  if $rule->{hang};

    $self->{then} = $then;
    $self->write($bytes);
    return;
}


# Half of the body if there is one, else half of the head.

sub first_half($bytes) {
    my $head = index($bytes, "\r\n\r\n") + 4;
    my $body = length($bytes) - $head;
    return substr $bytes, 0,
        $body > 1 ? $head + int $body / 2 : int $head / 2;
}


sub format_answer($self, $answer) {
    my $status = $answer->{status};
    my $body   = $answer->{body} // '';
    my $reason = $REASON{$status} // 'Unknown';
    my @extra  = @{ $answer->{headers} // [] };

    my @head = (
        ['Content-Length', length $body],
        (defined $answer->{type} ? ['Content-Type', $answer->{type}] : ()),
        ['Vary', 'Origin'],
        ['Server', 'Microsoft-HTTPAPI/2.0'],
        (defined $answer->{request_id}
            ? ['x-ms-request-id', $answer->{request_id}] : ()),
        ['Date', $answer->{date}],
    );

    if (@extra) {
        my %given = map { lc $_->[0] => $_->[1] } @extra;
        @head = grep { !exists $given{ lc $_->[0] } } @head;
        $answer->{close} = 1 if lc($given{connection} // '') eq 'close';
        push @head, @extra;
    }

    $self->{last_answer} =
        $answer->{close} || !$self->{request}{keep_alive};
    push @head, ['Connection', 'close']
        if $self->{last_answer} && !grep { lc $_->[0] eq 'connection' } @head;

    $body = '' if $self->{request}{method} eq 'HEAD';
    return join "\r\n", "HTTP/1.1 $status $reason",
        map({ "$_->[0]: $_->[1]" } @head), '', $body;
}


sub write($self, $bytes) {
    $self->{out} .= $bytes;
    $self->flush;
    return;
}


sub flush($self) {
    my $socket = $self->{socket};

    while (length $self->{out}) {
        my $sent = $self->{tls}
            ? $socket->syswrite($self->{out})
            : syswrite $socket, $self->{out};

        if (!defined $sent) {
            next if $!{EINTR};
            return $self->close_now unless $!{EAGAIN} || $!{EWOULDBLOCK};
            $self->{writing} = 1;
            $self->{loop}->want_write($self->{fd}, 1);
            return;
        }
        substr $self->{out}, 0, $sent, '';
    }

    if ($self->{writing}) {
        $self->{writing} = 0;
        $self->{loop}->want_write($self->{fd}, 0);
    }

    my $then = delete $self->{then} or return;
    $self->$then;
    return;
}


# A pipelined request may be in the buffer already.  Not read from here: an
# answer without delay comes from process(), which goes on by itself.

sub next_request($self) {
    $self->{phase}     = 'head';
    $self->{request}   = undef;
    $self->{timer}     = undef;
    $self->{active_at} = time;

    $self->{loop}->after(0, sub { $self->process })
        if length $self->{in};
    return;
}


sub hang($self) {
    $self->{phase} = 'hung';
    return;
}


sub reset($self) {
    setsockopt $self->{socket}, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0;
    $self->{abrupt} = 1;
    $self->close_now;
    return;
}


# Unread bytes would make the kernel send a reset with the close, and that
# may overtake the answer.

sub close_after_drain($self) {
    $self->say_goodbye;
    shutdown $self->{socket}, 1;
    $self->{phase} = 'drain';
    $self->{loop}->after(DRAIN_SECONDS, sub { $self->close_now });
    return;
}


sub say_goodbye($self) {
    return if !$self->{tls} || $self->{abrupt};
    my $ssl = $self->{socket}->_get_ssl_object or return;
    Net::SSLeay::shutdown($ssl);
    return;
}


sub idle($self) {
    return $self->{phase} =~ /^(?:peek|handshake|head)\z/
        && $self->{in} eq '';
}


sub close_now($self) {
    return if $self->{closed};
    $self->{closed} = 1;

    $self->{loop}->remove($self->{fd});
    $self->{loop}->cancel($self->{timer}) if $self->{timer};
    $self->{on_close}->() if $self->{on_close};

    if ($self->{tls}) {
        $self->say_goodbye unless $self->{phase} eq 'drain';
        $self->{socket}->close(SSL_no_shutdown => 1);
    } else {
        close $self->{socket};
    }

    $self->{server}->closed($self);
    return;
}

1;
