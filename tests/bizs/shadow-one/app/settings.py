WHO = 'one'
