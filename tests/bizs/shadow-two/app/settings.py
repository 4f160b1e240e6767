WHO = 'two'
