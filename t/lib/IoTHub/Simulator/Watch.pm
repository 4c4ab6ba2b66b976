# Copyright (C) the ngx_http_iothub_module authors

# What arrives, for a person to read.

package IoTHub::Simulator::Watch;

use v5.36;
use strict;
use warnings;

use Exporter qw(import);
use POSIX qw(strftime);

our @EXPORT_OK = qw(watch);

use constant BODY_MAX => 2000;


# One line for an exchange, and under it what the hub took.

sub watch($exchange) {
    my $request = $exchange->{request};
    my $time    = $request->{time};

    printf "%s.%03d  %-6s  %-24s  %s%s%s\n",
        strftime('%H:%M:%S', localtime $time),
        ($time - int $time) * 1000,
        $request->{op} eq 'other' ? $request->{method} : $request->{op},
        printable($request->{device} // $request->{path}),
        $exchange->{status} || 'no answer',
        defined $exchange->{error} ? "  $exchange->{error}" : '',
        defined $exchange->{fault} ? "  (fault: $exchange->{fault})" : '';

    print_message($_) for @{ $exchange->{messages} // [] };
    return;
}


sub print_message($message) {
    for my $kind (qw(system properties)) {
        my $values = $message->{$kind};
        my $prefix = $kind eq 'system' ? '' : 'app ';
        printf "    %s%s: %s\n", $prefix, printable($_),
            printable($values->{$_}) for sort keys %$values;
    }

    my $body = $message->{body};
    return if $body eq '';

    my $more = length($body) - BODY_MAX;
    $body = substr $body, 0, BODY_MAX if $more > 0;

    # UTF-8 is shown as it is, anything else escaped
    my $text = $body;
    $body = printable($body) unless utf8::decode($text)
        && $text !~ /[^\P{Cntrl}\t\r\n]/;

    $body =~ s/\r?\n/\n    /g;
    print "    $body", $more > 0 ? " ... $more bytes more" : '', "\n";
    return;
}


sub printable($text) {
    return $text =~ s/([^\x20-\x7e])/sprintf '\\x%02x', ord $1/ger;
}

1;
